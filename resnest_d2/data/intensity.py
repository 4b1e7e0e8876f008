"""From stored values to the 8 bits that a detector takes.

Only images with more than 8 bits a channel need a rule, because files do not say which value is
white. One rule holds for a run, in training, evaluation and prediction (``RESNEST.INTENSITY``):

- ``type``: integers from 0 to 65535, floats from 0 to 1. The default.
- ``none``: values as they are, clipped to 0 and 255, as by Detectron2's ``read_image``.
- ``percentile``: between two percentiles of each image, 0.5 and 99.5 unless ``RANGE`` has
  others.
- ``range``: from and to the values in ``RANGE``, such as (0, 4095) for 12 bits stored in 16.

NaN is taken as the lowest value.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectron2.config import CfgNode

from ..errors import check_choice

RULES = ("type", "none", "percentile", "range")

_PERCENTILES = (0.5, 99.5)
_WHITES = (1, 255, 1023, 4095, 16383, 65535)  # of floats, and of 8 to 16 bits
_LEAST_SHARE = 1 / 8  # of the range from black to white: with less, images are nearly of one shade
_MARGIN = 0.01  # of the range: resampling leaves floats slightly outside of 0-1


@dataclass(frozen=True)
class ValueRange:
    """The lowest and the highest finite value of some images.

    Attributes:
        kind: of the numbers: ``"16-bit"``, ``"32-bit"`` or ``"float"``.
        images: how many.
    """

    kind: str
    low: float
    high: float
    images: int = 1

    def __str__(self) -> str:
        images = f" in {self.images} images" if self.images > 1 else ""
        return f"{self.kind} values from {self.low:.6g} to {self.high:.6g}{images}"


@dataclass(frozen=True)
class Intensity:
    """The rule of a run.

    Args:
        rule: one of :data:`RULES`.
        range: for ``range`` the values of black and white, for ``percentile`` two percentages or
            none; otherwise empty.

    Raises:
        ValueError: an invalid value; the message names the config key.
    """

    rule: str = "type"
    range: tuple[float, ...] = ()

    def __post_init__(self):
        check_choice("RESNEST.INTENSITY.RULE", self.rule, RULES)
        given = tuple(self.range)
        object.__setattr__(self, "range", given)
        if self.rule == "range":
            allowed, valid = "two numbers: the values of black and of white", _ascending(given)
        elif self.rule == "percentile":
            allowed = "empty, or two percentages from 0 to 100, the lower one first"
            valid = not given or _ascending(given) and 0 <= given[0] and given[1] <= 100
        else:
            allowed, valid = "empty", not given
        if not valid:
            raise ValueError(
                f"RESNEST.INTENSITY.RANGE must be {allowed}, where RESNEST.INTENSITY.RULE is "
                f"{self.rule!r}, got {given}"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "Intensity":
        """The rule of a config; the default one where the config has no such keys."""
        node: Any = cfg
        for key in ("RESNEST", "INTENSITY"):
            node = node.get(key, {})
            if not isinstance(node, Mapping):
                raise ValueError(f"the config's {key} must hold keys, got {node!r}")
        values = node.get("RANGE", ())
        if not isinstance(values, (list, tuple)):
            raise ValueError(f"RESNEST.INTENSITY.RANGE must be a list of numbers, got {values!r}")
        return cls(node.get("RULE", "type"), values)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Numbers of any type, (H, W) or (H, W, 3), as uint8 of the same shape."""
        floating = values.dtype.kind == "f"
        values = values.astype(np.float64 if values.dtype.itemsize > 2 and not floating else "f4")
        if self.rule == "percentile":
            finite = values[np.isfinite(values)]
            low, high = np.percentile(finite, self.range or _PERCENTILES) if finite.size else (0, 1)
        else:
            low, high = self._limits(floating)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low).clip(low, high)
        if self.rule == "none":
            return values.astype(np.uint8)  # rounded down, as by Pillow
        return np.rint((values - low) * (255 / ((high - low) or 1))).astype(np.uint8)

    def misfit(self, seen: ValueRange) -> str:
        """Why such values do not fit this rule; empty where they do."""
        if self.rule == "percentile":
            return ""
        low, high = self._limits(seen.kind == "float")
        margin = _MARGIN * (high - low)
        if self.rule != "range" and (seen.low < low - margin or seen.high > high + margin):
            return f"{seen}: those outside of {low:g} to {high:g} become black or white"
        if min(seen.high, high) - max(seen.low, low) < _LEAST_SHARE * (high - low):
            return f"{seen}: all nearly the same shade, where {low:g} is black and {high:g} white"
        return ""

    def _limits(self, floating: bool) -> tuple[float, float]:
        if self.rule == "range":
            return self.range
        return (0, 255) if self.rule == "none" else (0, 1) if floating else (0, 65535)


BY_TYPE = Intensity()
"""The default rule."""


def fitting_keys(seen: Sequence[ValueRange]) -> str:
    """Config keys and values for such values."""
    low, high = (float(f"{value:.4g}") for value in (seen[0].low, seen[0].high))
    white = next((white for white in _WHITES if seen[0].high <= white), 0)
    if low >= 0 and high - low >= _LEAST_SHARE * white > 0:
        low, high = 0, white
    if len(seen) > 1 or low >= high:  # no one range fits several kinds of numbers
        return "RESNEST.INTENSITY.RULE percentile"
    if (low, high) == (0, 255):
        return "RESNEST.INTENSITY.RULE none"
    return f'RESNEST.INTENSITY.RULE range RESNEST.INTENSITY.RANGE "({low:g}, {high:g})"'


def _ascending(values: tuple) -> bool:
    numbers = len(values) == 2 and all(type(v) in (int, float) for v in values)
    return numbers and all(map(math.isfinite, values)) and values[0] < values[1]

"""Input statistics: the channel order and normalisation of images that weights expect.

They belong to the weights: with swapped channels or another mean, a network detects less, without
an error.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from detectron2.config import CfgNode

from ..text import printable
from .record import PROVENANCE_KEY, RECORD_KEY, parse_config
from .weight_files import StoredWeights


@dataclass(frozen=True)
class InputStatistics:
    """Channel order and normalisation of 0-255 images.

    Attributes:
        format: channel order, ``"RGB"`` or ``"BGR"`` (``INPUT.FORMAT``).
        mean, std: one value a channel, in that order (``MODEL.PIXEL_MEAN``, ``MODEL.PIXEL_STD``).
    """

    format: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "InputStatistics":
        return cls.from_values(cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)

    @classmethod
    def from_values(cls, format: str, mean: Iterable, std: Iterable) -> "InputStatistics":
        """From the entries of a file or a config, whose numbers may be texts.

        Raises:
            ValueError, TypeError: invalid values.
        """
        mean, std = (tuple(map(float, values)) for values in (mean, std))
        if type(format) is not str or max(len(mean), len(std)) > _MAX_CHANNELS:
            raise ValueError(f"{format!r:.20}, {len(mean)} means and {len(std)} deviations")
        return cls(format, mean, std)

    def __str__(self) -> str:
        return f"{self.format}, mean {[*self.mean]}, std {[*self.std]}"


CLASSIFIER = InputStatistics("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""The official ImageNet classifiers' and timm's: 255 times (0.485, …) and (0.229, …)."""

DETECTOR = InputStatistics("RGB", (123.68, 116.779, 103.939), (58.393, 57.12, 57.375))
"""The original plugin's backbones and detectors, and MMDetection's (58.393 is theirs)."""

MSRA = InputStatistics("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
"""Detectron2's MSRA ResNets."""

# The official classifiers and the original plugin's backbones come from one training, but are used
# with slightly different constants. Smaller differences than these do not matter.
_SAME_MEAN = 0.5  # grey levels
_SAME_STD = 0.01

_MAX_CHANNELS = 64

_BY_FORMAT = {
    "official": CLASSIFIER,
    "timm": CLASSIFIER,
    "mmcls": CLASSIFIER,
    "encoding": CLASSIFIER,
    "resnest_d2": DETECTOR,
    "detectron2": DETECTOR,
    "mmdet": DETECTOR,
}


def weights_statistics(stored: StoredWeights) -> InputStatistics | None:
    """The input that weights expect, or None where it is not known.

    It is known from the file's record (of training or of conversion), or from its format: all
    published backbones of a format have the same. A whole detector without a record may come from
    any training.

    Raises:
        ValueError: the record is damaged.
    """
    try:
        record, provenance = map(stored.metadata.get, (RECORD_KEY, PROVENANCE_KEY))
        if record is not None:
            return InputStatistics.from_config(parse_config(record["config"]))
        if provenance is not None:
            statistics = provenance["statistics"]
            if statistics is None:  # they were not known when it was converted
                return None
            return InputStatistics.from_values(*(statistics[k] for k in ("format", "mean", "std")))
    except Exception as error:  # yacs and yaml raise a dozen kinds
        raise ValueError(
            f"{stored.path} is damaged: its input format cannot be read: "
            f"{printable(repr(error), 150)}"
        ) from error
    if stored.metadata.get("__author__") == "Caffe2":
        first = stored.tensors.get("res2_0_branch2b_w")  # grouped in ResNeXt, which has a std
        return MSRA if first is not None and first.shape[0] == first.shape[1] else None
    parts = {name.partition(".")[0] for name in stored.tensors}
    if stored.format == "detectron2" and parts != {"backbone"}:
        return None
    return _BY_FORMAT.get(stored.format)


def require_same_statistics(
    source: str | os.PathLike, weights: InputStatistics | None, config: InputStatistics
) -> None:
    """Refuse a config with another input than the weights expect.

    Args:
        source: of the weights, for the message.
        weights: None where it is not known; nothing is refused then.

    Raises:
        ValueError: with both, and the lines that correct the config.
    """
    if weights is None or weights == config:
        return
    almost_same = weights.format == config.format and all(
        len(ours) == len(theirs)
        and all(abs(a - b) < limit for a, b in zip(ours, theirs, strict=True))
        for ours, theirs, limit in (
            (config.mean, weights.mean, _SAME_MEAN),
            (config.std, weights.std, _SAME_STD),
        )
    )
    if not almost_same:
        raise ValueError(
            f"{source} was trained with other images than the config gives it:\n"
            f"  weights: {weights}\n  config:  {config}\nThese lines correct the config:\n"
            f"  INPUT.FORMAT {weights.format}\n"
            f'  MODEL.PIXEL_MEAN "{[*weights.mean]}"\n  MODEL.PIXEL_STD "{[*weights.std]}"\n'
            "Or, to use the weights all the same: RESNEST.ALLOW_STATISTICS_MISMATCH True"
        )

"""What the config in a checkpoint may ask for, as the file may come from anybody.

The weights limit the network (:func:`.trained.check_network`). The limits here are for what has no
weights: sizes of images, numbers of proposals, of points per box, of worker processes. No real
model needs more. Training's own keys are not read, ``SOLVER`` may hold anything.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import ArgumentError

_LIMITS = {
    "MIN_SIZE_TEST": (0, 10_000),  # pixels; 0: images keep their size
    "MAX_SIZE_TEST": (0, 2**31),
    "MIN_SIZES": (1, 10_000),  # of TEST.AUG
    "MAX_SIZE": (1, 2**31),
    "DETECTIONS_PER_IMAGE": (-1, 100_000),  # -1: all
    "NUM_WORKERS": (0, 1000),
    "SEED": (-1, 2**32 - 1),
    "PRE_NMS_TOPK_TRAIN": (0, 100_000),
    "PRE_NMS_TOPK_TEST": (0, 100_000),
    "POST_NMS_TOPK_TRAIN": (0, 20_000),
    "POST_NMS_TOPK_TEST": (0, 20_000),
    "TOPK_CANDIDATES_TEST": (0, 100_000),
    "POOLER_RESOLUTION": (1, 64),
    "POOLER_SAMPLING_RATIO": (-1, 8),
    "COMMON_STRIDE": (1, 32),
    "BASE_SIZE": (1, 4096),  # of RESNEST.SEGMENT, pixels
    "WINDOW": (1, 4096),
    "SCALES": (0, 4),
}
"""Lowest and highest number, by the last part of the key."""

_WHOLE = (-1_000_000, 1_000_000)  # any other whole number of MODEL
_COUNTS = {  # of values
    "TEST.AUG.MIN_SIZES": (1, 30),
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": (1, 10),
    "RESNEST.SEGMENT.SCALES": (0, 30),
}
_MOST_ANCHORS = 1000  # of one place
_ANCHORS = "MODEL.ANCHOR_GENERATOR"
_GENERATOR = "MODEL.PROPOSAL_GENERATOR.NAME"


def check_limits(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse values, by dotted key, that no real model has.

    Raises:
        ArgumentError: null where the default is a value, a number out of range, or too many.
    """
    for key, value in values.items():
        if key.startswith("SOLVER."):
            continue
        parts, name = list(_parts(value)), key.rpartition(".")[2]
        if None in parts and defaults.get(key) not in (None, ""):
            raise ArgumentError(key, f"must not be null, the default is {defaults[key]!r}")
        usual = list(_parts(defaults.get(key, ())))
        if usual and all(map(_is_number, usual)) and not all(map(_is_number, parts)):
            raise ArgumentError(key, f"must be numbers, got {value!r:.100}")
        low, high = _LIMITS.get(name, _WHOLE if key.startswith("MODEL.") else (-math.inf, math.inf))
        for part in parts:
            known = _is_number(part) and low <= part <= high
            if not known and (name in _LIMITS or type(part) is int):
                raise ArgumentError(key, f"must be from {low} to {high}, got {part!r}")
        fewest, most = _COUNTS.get(key, (0, len(parts)))
        if not fewest <= len(parts) <= most:
            raise ArgumentError(key, f"must be {fewest} to {most} values, got {len(parts)}")
    if values["MODEL.LOAD_PROPOSALS"] or values[_GENERATOR] == "PrecomputedProposals":
        raise ArgumentError(
            f"MODEL.LOAD_PROPOSALS or {_GENERATOR}",
            "must not ask for files of proposals, which are pickles that could run code: if you "
            "trust them, give the config yourself (--config-file)",
        )
    lists = [values[f"{_ANCHORS}.{name}"] for name in ("SIZES", "ASPECT_RATIOS", "ANGLES")]
    number = math.prod(map(_longest, lists))
    if number > _MOST_ANCHORS:
        problem = f"must give at most {_MOST_ANCHORS} anchors at a place, got {number}"
        raise ArgumentError(f"{_ANCHORS}.SIZES x ASPECT_RATIOS x ANGLES", problem)


def _parts(value: Any) -> Iterator[Any]:
    """The values in nested sequences."""
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _parts(part)
    else:
        yield value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _longest(value: Sequence) -> int:
    """The length of the longest list in a list, or its own if it holds none."""
    return max((len(part) for part in value if isinstance(part, (list, tuple))), default=len(value))

"""Input statistics: how an image must be given to the network that weights were trained in.

They belong to the weights. The same network fed with swapped channels, or with another mean, finds
less and says nothing.
"""

from dataclasses import dataclass

from detectron2.config import CfgNode

__all__ = ["CLASSIFIER", "DETECTOR", "MSRA", "InputStatistics"]


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
        return cls(cfg.INPUT.FORMAT, tuple(cfg.MODEL.PIXEL_MEAN), tuple(cfg.MODEL.PIXEL_STD))


CLASSIFIER = InputStatistics("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""The official ImageNet classifiers' and timm's: 255 times (0.485, …) and (0.229, …)."""

DETECTOR = InputStatistics("RGB", (123.68, 116.779, 103.939), (58.393, 57.12, 57.375))
"""The original plugin's backbones and detectors, and MMDetection's (58.393 is theirs)."""

MSRA = InputStatistics("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
"""Detectron2's MSRA ResNets."""

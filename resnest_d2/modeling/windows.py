"""Semantic segmentation at several scales, in windows: the protocol of the published mIoU.

Source: PyTorch-Encoding's evaluation of the published ResNeSt models. An image is resized to each
scale and padded with black to at least one window. Windows overlap by a third; where they do, the
mean counts. The score of a class is the exponential of its logits, of the window and of its mirror
image together, and scores are added over the scales.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from detectron2.config import CfgNode

PUBLISHED_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class WindowedSegmentor(nn.Module):
    """Calls a ``SemanticSegmentor`` window by window: the same inputs, scores in place of logits.

    Besides the sums of the scores, only one window is in memory at a time.

    Args:
        model: in evaluation mode.
        scales: of the image.
        base_size: long side of the image at scale 1, pixels.
        window: side of the square windows, pixels.
        flip: take the mirror image of each window too.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        scales: tuple[float, ...],
        base_size: int = 520,
        window: int = 480,
        flip: bool = True,
    ):
        super().__init__()
        self.model = model
        self.scales = tuple(scales)
        self.base_size = base_size
        self.window = window
        self.flip = flip
        self.train(model.training)

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> nn.Module:
        """``model`` itself where ``RESNEST.SEGMENT.SCALES`` is empty."""
        keys = cfg.RESNEST.SEGMENT
        if not keys.SCALES:
            return model
        return cls(
            model,
            scales=keys.SCALES,
            base_size=keys.BASE_SIZE,
            window=keys.WINDOW,
            flip=keys.FLIP,
        )

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """
        Returns:
            for each image ``sem_seg``, scores (classes, height, width).
        """
        mean, std = self.model.pixel_mean, self.model.pixel_std
        results = []
        for item in batched_inputs:
            image = ((item["image"].to(mean.device) - mean) / std)[None]
            size = (item.get("height", image.shape[2]), item.get("width", image.shape[3]))
            scores = sum(_resized(self._scores(image, scale), size) for scale in self.scales)
            results.append({"sem_seg": scores[0]})
        return results

    def _scores(self, image: torch.Tensor, scale: float) -> torch.Tensor:
        """Scores of an image (1, 3, H, W) at the size of one scale, (1, classes, h, w)."""
        long_side = math.ceil(self.base_size * scale)
        height, width = (
            max(1, int(side * long_side / max(image.shape[2:]) + 0.5)) for side in image.shape[2:]
        )
        padded = self._padded(_resized(image, (height, width)))
        sums = counts = None
        for top, left in self._places(*padded.shape[2:]):
            part = padded[:, :, top : top + self.window, left : left + self.window]
            scores = self._window_scores(self._padded(part))[:, :, : part.shape[2], : part.shape[3]]
            if sums is None:
                sums = scores.new_zeros(1, scores.shape[1], *padded.shape[2:])
                counts = scores.new_zeros(1, 1, *padded.shape[2:])
            here = (..., slice(top, top + part.shape[2]), slice(left, left + part.shape[3]))
            sums[here] += scores
            counts[here] += 1
        return sums.div_(counts)[:, :, :height, :width]

    def _places(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """Top left corners of the windows."""
        stride = int(self.window * 2 / 3)
        rows, columns = (math.ceil((side - self.window) / stride) + 1 for side in (height, width))
        for row in range(rows):
            for column in range(columns):
                yield row * stride, column * stride

    def _window_scores(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, window, window) -> (1, classes, window, window)"""
        if self.flip:
            x = torch.cat((x, x.flip(3)))
        logits, _ = self.model.sem_seg_head(self.model.backbone(x))
        logits = logits.float()[:, :, : self.window, : self.window]
        if self.flip:
            logits = logits[:1] + logits[1:].flip(3)
        return logits.exp()

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        """An image, padded with black at its right and bottom to at least one window."""
        height, width = (max(side, self.window) for side in x.shape[2:])
        if (height, width) == x.shape[2:]:
            return x
        black = -self.model.pixel_mean / self.model.pixel_std  # (3, 1, 1)
        padded = black.expand(1, -1, height, width).clone()
        padded[:, :, : x.shape[2], : x.shape[3]] = x
        return padded


def use_scales(cfg: CfgNode) -> None:
    """Check ``RESNEST.SEGMENT``, and let images keep their size where it says the sizes, in place.

    Raises:
        ValueError: an invalid value, with its key.
    """
    keys = cfg.RESNEST.SEGMENT
    if not all(type(scale) in (int, float) and 0 < scale < math.inf for scale in keys.SCALES):
        raise ValueError(
            f"RESNEST.SEGMENT.SCALES must be numbers above 0, got {tuple(keys.SCALES)}"
        )
    for name, lowest in (("BASE_SIZE", 1), ("WINDOW", 2)):
        if keys[name] < lowest:
            raise ValueError(f"RESNEST.SEGMENT.{name} must be at least {lowest}, got {keys[name]}")
    if keys.SCALES:
        cfg.INPUT.MIN_SIZE_TEST = 0


def _resized(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)

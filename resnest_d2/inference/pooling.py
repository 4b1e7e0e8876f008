"""ROI align for many boxes on a CPU (He et al., arXiv 1703.06870, section 3).

The value of a bin is the mean of samples, each interpolated from four cells of the feature map.
Both steps are linear and separable, so a bin is one weighted sum over a rectangle of cells.
Neighbouring samples share cells: n samples a side need n + 1 cells, not 2n. ``F.embedding_bag``
computes weighted sums of rows, vectorised over channels (channels_last) and on all cores;
torchvision's operator runs on one core. The values are equal up to rounding.
"""

import torch
import torch.nn.functional as F
from torch import nn

from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.structures import Boxes

from .replace import replace_modules

_COUNTS = (1, 2, 3, 4, 6, 8, 12)  # samples a side that ROIs are grouped by; then powers of two


class FastROIPooler(nn.Module):
    """Computes a ``ROIPooler`` with ROI align, for inference on a CPU.

    Args:
        of: the pooler, with ``ROIAlign`` or ``ROIAlignV2``.
    """

    def __init__(self, of: ROIPooler):
        super().__init__()
        self.of = of
        self.output_size = of.output_size

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        """
        Args:
            x: a feature map (N, C, H, W) for each level, fastest in channels_last.
            box_lists: for each of the N images its boxes in pixels, M in total.

        Returns:
            (M, C, h, w), channels_last
        """
        height, width = self.output_size
        channels = x[0].shape[1]
        if not box_lists:
            return x[0].new_zeros((0, channels, height, width))
        rois = convert_boxes_to_pooler_format(box_lists)  # (M, 5): image, x1, y1, x2, y2
        rois = rois.to(torch.promote_types(rois.dtype, x[0].dtype))
        levels = torch.zeros(len(rois), dtype=torch.int64)
        if len(x) > 1:
            levels = assign_boxes_to_levels(
                box_lists,
                self.of.min_level,
                self.of.max_level,
                self.of.canonical_box_size,
                self.of.canonical_level,
            )
        pooled = x[0].new_empty((len(rois), height * width, channels))
        for level, (features, pooler) in enumerate(zip(x, self.of.level_poolers, strict=True)):
            chosen = torch.nonzero(levels == level)[:, 0]
            if len(chosen):
                _pool(features, rois[chosen], pooler, chosen, pooled)
        return pooled.view(-1, height, width, channels).permute(0, 3, 1, 2)


def replace_poolers(model: nn.Module) -> int:
    """Replace every ROI align pooler by :class:`FastROIPooler` in place; returns their number."""

    def aligns(module: nn.Module) -> bool:
        return isinstance(module, ROIPooler) and all(
            isinstance(pooler, ROIAlign) for pooler in module.level_poolers
        )

    return replace_modules(model, FastROIPooler, aligns)


def _pool(
    features: torch.Tensor,
    rois: torch.Tensor,
    pooler: ROIAlign,
    rows: torch.Tensor,
    pooled: torch.Tensor,
) -> None:
    """ROI align on one level, into the given rows of ``pooled`` (M, h*w, C)."""
    batch, channels, height, width = features.shape
    table = features.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    offset = 0.5 if pooler.aligned else 0.0
    corners = rois[:, 1:] * pooler.spatial_scale - offset
    starts = corners[:, :2].flip(1)  # y, x
    sizes = corners[:, 2:].flip(1) - starts
    if not pooler.aligned:
        sizes = sizes.clamp(min=1)
    bins = sizes / sizes.new_tensor(pooler.output_size)  # height, width of a bin in cells
    if pooler.sampling_ratio > 0:
        samples = torch.full_like(bins, pooler.sampling_ratio)
    else:
        samples = bins.ceil().clamp(min=0)
    merged = pooler.sampling_ratio <= 0  # samples are at most one cell apart

    counts, largest = list(_COUNTS), float(samples.max())
    while counts[-1] < largest:
        counts.append(2 * counts[-1])
    limits = bins.new_tensor(counts)
    groups = torch.bucketize(samples, limits)  # (m, 2)
    first = rois[:, 0].long() * (height * width)
    for group in torch.unique(groups, dim=0):
        chosen = torch.nonzero((groups == group).all(dim=1))[:, 0]
        (cells_y, weights_y), (cells_x, weights_x) = (
            _interpolation(
                starts[chosen, axis],
                bins[chosen, axis],
                samples[chosen, axis],
                int(limits[group[axis]]),
                pooler.output_size[axis],
                (height, width)[axis],
                merged=merged,
            )
            for axis in (0, 1)
        )
        # (m, h, 1, ky, 1) and (m, 1, w, 1, kx) -> (m * h * w, ky * kx)
        cells_y = cells_y * width + first[chosen, None, None]
        cells = cells_y[:, :, None, :, None] + cells_x[:, None, :, None, :]
        weights = weights_y[:, :, None, :, None] * weights_x[:, None, :, None, :]
        size = cells_y.shape[2] * cells_x.shape[2]
        sums = F.embedding_bag(
            cells.reshape(-1, size),
            table,
            per_sample_weights=weights.reshape(-1, size).to(table.dtype),
            mode="sum",
        )
        pooled[rows[chosen]] = sums.view(len(chosen), -1, channels)


def _interpolation(
    start: torch.Tensor,
    size: torch.Tensor,
    samples: torch.Tensor,
    limit: int,
    bins: int,
    cells: int,
    *,
    merged: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cells that each bin reads along one axis, and their weights.

    Args:
        start: of the ROIs, in cells, (m,).
        size: of one bin of each ROI, in cells, (m,).
        samples: per bin of each ROI, (m,), at most ``limit``.
        bins, cells: number of bins of the output and of cells of the feature map.
        merged: samples are at most one cell apart, so that ``limit + 1`` cells are enough.

    Returns:
        Indices and weights, both (m, bins, k); an index may occur twice.
    """
    start, size, samples = start[:, None, None], size[:, None, None], samples[:, None, None]
    number = torch.arange(limit).to(size)  # (limit,)
    # Same order of division and multiplication as in torchvision.
    positions = start + torch.arange(bins).to(size)[:, None] * size
    positions = positions + (number + 0.5) * size / samples.clamp(min=1)  # (m, bins, limit)
    counts = (number < samples) & (positions >= -1) & (positions <= cells)
    shares = counts / samples.clamp(min=1)
    positions = positions.clamp(0, cells - 1)
    low = positions.floor()
    if merged:
        read = low[:, :, :1] + torch.arange(limit + 1).to(size)  # (m, bins, limit + 1)
        distance = (positions[..., None] - read[:, :, None]).abs()  # (m, bins, limit, limit + 1)
        weights = ((1 - distance).clamp(min=0) * shares[..., None]).sum(dim=2)
    else:
        read = torch.cat([low, low + 1], dim=2)
        upper = positions - low
        weights = torch.cat([(1 - upper) * shares, upper * shares], dim=2)
    return read.clamp(max=cells - 1).long(), weights

"""Charts of split attention and saliency, for readers who know the paper (arXiv 2004.08955).

Images are RGB, uint8, (H, W, 3). Each function writes a PNG; ``note`` is small print that names
image and network.
"""

import math
import os
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from ..analysis.attention import NO_ATTENTION, BlockAttention, ClassAttention
from ..analysis.saliency import Saliency
from .charts import COLORS, save_chart

# For weights. Their number is a prime, so equal weights, 1/R, fall into one bin despite rounding.
_BINS = np.linspace(0, 1, 24)
_SHOWN = 3  # channels of each kind
_MAPS = (
    "Above each split its weight. Maps are after norm and ReLU, bright where strong, on one scale "
    "in each row. Fused: the splits times their weights, summed."
)


def plot_attention(
    blocks: Mapping[str, BlockAttention], image: np.ndarray, path: str | os.PathLike, *, note: str
) -> Figure:
    """Draw how the blocks divide their weight between the splits for one image.

    Above is the distribution of the weights over the channels, by block, and by split for more than
    two splits; below, how selective the blocks are.

    Args:
        blocks: from :func:`record_attention`; only the first image of the batch is drawn.
    """
    if not blocks:
        raise ValueError(NO_ATTENTION)
    radix = next(iter(blocks.values())).radix
    drawn = range(radix if radix > 2 else 1)  # of two splits, the second is one minus the first
    size = (6 + np.clip(0.24 * len(blocks), 4, 10), 2.6 + 2.2 * len(drawn))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(len(drawn) + 1, 2, width_ratios=(3, size[0] - 3))
    _show(figure.add_subplot(grid[0, 0]), image, "Input image")
    *panels, lowest = (figure.add_subplot(grid[row, 1]) for row in range(len(drawn) + 1))
    for split, axes in zip(drawn, panels, strict=True):
        counts = [np.histogram(block.weights[0, split], _BINS)[0] for block in blocks.values()]
        shares = np.array([100 * count / count.sum() for count in counts])  # (blocks, bins)
        mesh = axes.pcolormesh(np.arange(len(blocks) + 1) - 0.5, _BINS, shares.T, cmap="Blues")
        _equal_weight(axes.axhline, radix)
        _title(axes, f"{_weight(radix, split)}; dark: many channels")
        axes.set(ylabel="weight", ylim=(0, 1), xticks=[])
    figure.colorbar(mesh, ax=panels, label="% of the block's channels")
    selectivity = [block.selectivity[0].mean() for block in blocks.values()]
    lowest.bar(range(len(blocks)), selectivity, color=COLORS[4])
    lowest.set(ylabel="selectivity", ylim=(0, 1), xlabel="block", xlim=panels[0].get_xlim())
    ends = "all splits are alike, 1 where one takes all"
    if radix == 1:
        ends = "gates are half open, 1 open or closed"
    _title(lowest, f"Selectivity, mean of the channels: 0 where {ends}")
    _name_blocks(lowest, list(blocks))
    save_chart(figure, path, title="Split attention for one image", note=note)
    return figure


def plot_block(
    name: str,
    block: BlockAttention,
    image: np.ndarray,
    path: str | os.PathLike,
    *,
    covered: tuple[int, int],
    note: str,
) -> Figure:
    """Draw the weights of one block, and maps of its most and least selective channels.

    Channels that are zero all over the image come last: they show no choice between the splits.

    Args:
        block: with its splits; only the first image of the batch is drawn.
        covered: height and width, in pixels, that the maps cover: those of the padded image.
    """
    radix, splits, fused, weights = block.radix, block.splits[0], block.fused[0], block.weights[0]
    selectivity, silent = block.selectivity[0], splits.max(axis=(0, 2, 3)) == 0
    extremes = {
        "most": np.lexsort((-selectivity, silent))[:_SHOWN],
        "least": np.lexsort((selectivity, silent))[:_SHOWN],
    }
    height = 0.4 + 1.3 * min(2, image.shape[0] / image.shape[1])  # of a row, inches
    size = (4 + 2.6 * (radix + 1), max(4, 1 + height * len(extremes["most"])))
    figure = Figure(figsize=size, layout="constrained")
    columns = figure.subfigures(1, 3, width_ratios=(3.4, *[1.3 * (radix + 1)] * 2))
    upper, lower = columns[0].subplots(2, 1)
    _show(upper, image, "Input image")
    for split in range(radix if radix > 2 else 1):
        color, kind = COLORS[(4, 2, 6, 1)[split % 4]], "bar" if radix <= 2 else "step"
        lower.hist(weights[split], _BINS, color=color, histtype=kind, label=f"split {split + 1}")
    _equal_weight(lower.axvline, radix)
    lower.set(xlim=(0, 1), xlabel="weight", ylabel=f"channels (of {weights.shape[1]})")
    lower.yaxis.get_major_locator().set_params(integer=True)
    if radix > 2:
        lower.legend(fontsize="small")
    _title(lower, _weight(radix, 0 if radix <= 2 else None))
    for column, (kind, channels) in zip(columns[1:], extremes.items(), strict=True):
        column.suptitle(f"The {kind} selective channels", fontsize="medium")
        axes = column.subplots(len(channels), radix + 1, squeeze=False)
        for row, channel in zip(axes, channels, strict=True):
            titles = [f"split {r + 1}: {w:.2f}" for r, w in enumerate(weights[:, channel])]
            titles = (
                [*titles, "fused"] if radix > 1 else [f"gate: {weights[0, channel]:.2f}", "gated"]
            )
            maps = [*splits[:, channel], fused[channel]]
            for cell, values, title in zip(row, maps, titles, strict=True):
                extent, top = (0, covered[1], covered[0], 0), splits[:, channel].max()
                cell.imshow(values, cmap="magma", vmin=0, vmax=top, extent=extent)
                cell.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0), xticks=[], yticks=[])
                _title(cell, title)
            row[0].set_ylabel(f"channel {channel}", fontsize="small")
    save_chart(figure, path, title=f"Split attention in {name}", note=f"{_MAPS} {note}")
    return figure


def plot_class_attention(
    attention: ClassAttention, path: str | os.PathLike, *, block: str, note: str
) -> Figure:
    """Draw how the weights depend on the classes in the images.

    Above, for each class and block, the distance of its mean weights from those of all images, in
    multiples of chance; below, the differences in the channels of ``block`` that differ most.
    """
    counted = zip(attention.class_names, attention.num_images, strict=True)
    names = [f"{name} ({count})" for name, count in counted]
    blocks = list(attention.weights)
    ratios = np.stack([attention.ratio(name) for name in blocks], axis=1)
    radix = attention.weights[block].shape[1]
    differences = 100 * (attention.mean(block) - attention.weights[block].mean(axis=0))[:, 0]
    spread = np.fmax.reduce(abs(differences), axis=0)  # (C,)
    channels = np.sort(np.argsort(-spread)[:24])

    figure = Figure(figsize=(9, 3 + 0.52 * len(names)), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    most = np.fmax.reduce(ratios, axis=None, initial=2)
    drawn = upper.imshow(ratios, cmap="Blues", aspect="auto", vmin=1, vmax=most)
    figure.colorbar(drawn, ax=upper, label="times chance")
    _name_blocks(upper, blocks)
    _title(
        upper,
        "Distance of a class' mean weights from those of all images; 1: as far as that of as many "
        "images drawn at random",
    )
    most = np.fmax.reduce(abs(differences), axis=None, initial=1)
    shown = differences[:, channels]
    drawn = lower.imshow(shown, cmap="PuOr_r", aspect="auto", vmin=-most, vmax=most)
    figure.colorbar(drawn, ax=lower, label="percentage points")
    lower.set_xticks(range(len(channels)), channels)
    lower.set_xlabel("channel")
    _title(
        lower,
        f"{block}, {_weight_name(radix, 0).lower()}: mean of a class less mean of all images, in "
        f"the {len(channels)} channels that differ most",
    )
    for axes in (upper, lower):
        axes.set_yticks(range(len(names)), names)
        axes.set_ylabel("class (images)")
        axes.tick_params(labelsize="small")
    save_chart(figure, path, title="Split attention by class", note=note)
    return figure


def plot_saliency(
    result: Saliency, image: np.ndarray, name: str, path: str | os.PathLike, *, note: str
) -> Figure:
    """Draw the part of each pixel of the resized image in the score of a detection or class.

    Args:
        name: of the class.
    """
    height, width = result.attribution.shape
    x0, y0, x1, y1 = result.box
    # Neighbouring parts often cancel: their mean is drawn, at a scale that fits the object.
    sigma = min(math.sqrt((x1 - x0) * (y1 - y0)) / 20, min(height, width) / 8)  # pixels
    percent = 100 * torch.from_numpy(result.attribution)[None]
    parts = gaussian_blur(percent, 2 * math.ceil(3 * sigma) + 1, sigma)[0].numpy()
    most = abs(parts).max()

    inside, area = result.share_inside()
    of_class = result.region is not None
    share = f"{inside:.0%} of what counts is in the {result.place}, {area:.0%} of the image"
    titles = [
        f"The {'class' if of_class else 'detection'}: {name}, score {result.score:.2f}",
        "What counts" if of_class and result.region.all() else share,
    ]
    titles += [] if of_class else ["Around the box"]
    size = (1 + 4 * len(titles), 1.4 + 3.7 * height / width)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(titles))
    grey = np.asarray(Image.fromarray(image).convert("L")) // 3 + 170  # pale
    for axes, title in zip(panels, titles, strict=True):
        _show(axes, image if axes is panels[0] else grey, title)
        if not of_class:
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="black"))
        elif not result.region.all():
            axes.contour(result.region, [0.5], colors="black", linewidths=1)
    for axes in panels[1:]:
        opacity = np.minimum(1, 2 * abs(parts) / most)
        drawn = axes.imshow(parts, cmap="PuOr_r", vmin=-most, vmax=most, alpha=opacity)
    if not of_class:
        x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, 0.75 * max(x1 - x0, y1 - y0)
        panels[2].set(xlim=(x - half, x + half), ylim=(y + half, y - half))
    label = f"part of the score, % a pixel\n(smoothed, sigma {sigma:.1f} pixels)"
    figure.colorbar(drawn, ax=panels, label=label, shrink=0.8)
    reading = (
        f"Integrated gradients: orange raises the score, purple lowers it. All pixels add up to "
        f"{result.attribution.sum():.2f}; exact would be {result.score - result.baseline:.2f}, the "
        "score less that of an image of the mean colour."
    )
    title = f'What the score of "{name}" rests on'
    save_chart(figure, path, title=title, note=f"{reading} {note}")
    return figure


def _equal_weight(draw_line, radix: int) -> None:
    """A dashed line at the weight of each split where all are equal, or of a half open gate."""
    draw_line(1 / max(radix, 2), color=COLORS[5], linestyle="--", linewidth=1)


def _weight(radix: int, split: int | None) -> str:
    dashed = "half open" if radix == 1 else "where all are alike"
    return f"{_weight_name(radix, split)}, dashed {dashed}"


def _weight_name(radix: int, split: int | None) -> str:
    if split is None:
        return f"Weights of the {radix} splits"
    if radix == 1:
        return "Gate of each channel (radix 1)"
    return f"Weight of split {split + 1} of {radix}"


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize="small")


def _name_blocks(axes: Axes, names: list[str]) -> None:
    step = -(-len(names) // 30)  # there is space for 30 names
    rotation = 90 if len(names) > 10 else 0
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=rotation)


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    _title(axes, title)

"""Charts of split attention and saliency, for readers who know the paper (arXiv 2004.08955)."""

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
from .charts import save_chart
from .instances import _COLORS

__all__ = ["plot_attention", "plot_block", "plot_class_attention", "plot_saliency"]

# Of the weights. A prime: equal weights, 1/R, and their rounding errors fall into one bin.
_BINS = np.linspace(0, 1, 24)
_SPLITS = [_COLORS[number] for number in (4, 2, 6, 1)]
_SHOWN = 3  # channels of each kind
_MAPS = (
    "Above each split its weight. Maps are after norm and ReLU, bright where strong, on one scale "
    "in each row. Fused: the splits times their weights, summed."
)


def plot_attention(
    blocks: Mapping[str, BlockAttention], image: np.ndarray, path: str | os.PathLike, *, note: str
) -> Figure:
    """Draw how the blocks divide their weight for one image, as PNG.

    Above, the distribution of the weights over the channels, of each block; with more than two
    splits, of each split. Below, how selective the blocks are.

    Args:
        blocks: from :func:`record_attention`; the first image of each counts.
        image: that image, RGB, uint8, (H, W, 3).
        path: file to write.
        note: where image and network come from, below.
    """
    if not blocks:
        raise ValueError(NO_ATTENTION)
    radix = next(iter(blocks.values())).radix
    shown = range(radix if radix > 2 else 1)
    size = (6 + np.clip(0.24 * len(blocks), 4, 10), 2.6 + 2.2 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(len(shown) + 1, 2, width_ratios=(3, size[0] - 3))
    _show(figure.add_subplot(grid[0, 0]), image, "Input image")
    panels = [figure.add_subplot(grid[row, 1]) for row in range(len(shown) + 1)]
    places = np.arange(len(blocks))
    for split, axes in zip(shown, panels, strict=False):
        counts = [np.histogram(block.weights[0, split], _BINS)[0] for block in blocks.values()]
        shares = np.array([100 * count / count.sum() for count in counts])  # (blocks, bins)
        mesh = axes.pcolormesh(np.arange(len(blocks) + 1) - 0.5, _BINS, shares.T, cmap="Blues")
        axes.axhline(_equal(radix), color=_COLORS[5], linestyle="--", linewidth=1)
        _title(axes, f"{_weight(radix, split)}, dashed {_alike(radix)}; dark: many channels")
        axes.set(ylabel="weight", ylim=(0, 1))
    figure.colorbar(mesh, ax=panels[:-1], label="% of the block's channels")
    panels[-1].bar(places, [b.selectivity[0].mean() for b in blocks.values()], color=_COLORS[4])
    panels[-1].set(ylabel="selectivity", ylim=(0, 1), xlabel="block", xlim=panels[0].get_xlim())
    _title(panels[-1], _selectivity(radix))
    for axes in panels[:-1]:
        axes.set_xticks([])
    _name_blocks(panels[-1], list(blocks))
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
    """Draw one block's weights, and the maps of its most and least selective channels, as PNG.

    Channels that are zero all over the image come last there: nothing is divided in them.

    Args:
        name: the block's.
        block: with its splits; the first image counts.
        image: that image, RGB, uint8, (H, W, 3).
        path: file to write.
        covered: height and width that the maps stand for, in pixels: the padded image's.
        note: where image and network come from, below.
    """
    radix, splits, fused = block.radix, block.splits[0], block.fused[0]
    most, least = extreme_channels(block)
    row = 0.4 + 1.3 * min(2, image.shape[0] / image.shape[1])  # inches
    size = (4 + 2.6 * (radix + 1), max(4, 1 + row * len(most)))
    figure = Figure(figsize=size, layout="constrained")
    columns = figure.subfigures(1, 3, width_ratios=(3.4, *[1.3 * (radix + 1)] * 2))
    upper, lower = columns[0].subplots(2, 1)
    _show(upper, image, "Input image")
    for split in range(radix if radix > 2 else 1):
        lower.hist(
            block.weights[0, split],
            _BINS,
            color=_SPLITS[split % len(_SPLITS)],
            histtype="bar" if radix <= 2 else "step",
            label=f"split {split + 1}",
        )
    lower.axvline(_equal(radix), color=_COLORS[5], linestyle="--", linewidth=1)
    lower.set(xlim=(0, 1), xlabel="weight", ylabel=f"channels (of {block.weights.shape[2]})")
    lower.yaxis.get_major_locator().set_params(integer=True)
    if radix > 2:
        lower.legend(fontsize="small")
    weight = _weight(radix, 0) if radix <= 2 else f"Weights of the {radix} splits"
    _title(lower, f"{weight}, dashed {_alike(radix)}")
    for column, channels, kind in zip(columns[1:], (most, least), ("most", "least"), strict=True):
        column.suptitle(f"The {kind} selective channels", fontsize="medium")
        axes = column.subplots(len(channels), radix + 1, squeeze=False)
        for row, channel in zip(axes, channels, strict=True):
            top = splits[:, channel].max()
            maps = [*splits[:, channel], fused[channel]]
            weights = block.weights[0, :, channel]
            titles = [f"split {r + 1}: {weight:.2f}" for r, weight in enumerate(weights)]
            titles = [*titles, "fused"] if radix > 1 else [f"gate: {weights[0]:.2f}", "gated"]
            for cell, values, title in zip(row, maps, titles, strict=True):
                extent = (0, covered[1], covered[0], 0)
                cell.imshow(values, cmap="magma", vmin=0, vmax=top, extent=extent)
                cell.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0), xticks=[], yticks=[])
                _title(cell, title)
            row[0].set_ylabel(f"channel {channel}", fontsize="small")
    save_chart(figure, path, title=f"Split attention in {name}", note=f"{_MAPS} {note}")
    return figure


def extreme_channels(block: BlockAttention) -> tuple[list[int], list[int]]:
    """The most and the least selective channels; those that the image leaves at zero come last."""
    selectivity = block.selectivity[0]
    silent = block.splits[0].max(axis=(0, 2, 3)) == 0
    most, least = (np.lexsort((key, silent)) for key in (-selectivity, selectivity))
    return most[:_SHOWN].tolist(), least[:_SHOWN].tolist()


def plot_class_attention(
    attention: ClassAttention, path: str | os.PathLike, *, block: str, note: str
) -> Figure:
    """Draw how the weights depend on the classes that images hold, as PNG.

    Above, of every class and block, how far its mean weights are from those of all images, in
    multiples of what chance gives. Below, the means themselves, of the channels of one block that
    differ most.

    Args:
        path: file to write.
        block: the one below.
        note: where images and network come from, below.
    """
    names = [
        f"{name} ({count})"
        for name, count in zip(attention.class_names, attention.num_images, strict=True)
    ]
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
        f"{block}, {_weight(radix, 0).lower()}: mean of a class less mean of all images, in the "
        f"{len(channels)} channels that differ most",
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
    """Draw which pixels a detection's score rests on, as PNG.

    Args:
        image: the resized image, RGB, uint8, (h, w, 3).
        name: the class'.
        path: file to write.
        note: where image and network come from, below.
    """
    height, width = result.attribution.shape
    x0, y0, x1, y1 = result.box
    # Neighbours often cancel: what is drawn is their mean, at a scale that fits the object.
    sigma = min(math.sqrt((x1 - x0) * (y1 - y0)) / 20, min(height, width) / 8)  # pixels
    percent = 100 * torch.from_numpy(result.attribution)[None]
    parts = gaussian_blur(percent, 2 * math.ceil(3 * sigma) + 1, sigma)[0].numpy()
    most = abs(parts).max()

    figure = Figure(figsize=(13, 1.4 + 3.7 * height / width), layout="constrained")
    panels = figure.subplots(1, 3)
    inside, area = result.share_in_box()
    titles = (
        f"The detection: {name}, score {result.score:.2f}",
        f"{inside:.0%} of what counts is in the box, {area:.0%} of the image",
        "Around the box",
    )
    grey = np.asarray(Image.fromarray(image).convert("L")) // 3 + 170  # pale
    for axes, title in zip(panels, titles, strict=True):
        _show(axes, image if axes is panels[0] else grey, title)
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="black"))
    for axes in panels[1:]:
        opacity = np.minimum(1, 2 * abs(parts) / most)
        drawn = axes.imshow(parts, cmap="PuOr_r", vmin=-most, vmax=most, alpha=opacity)
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


def _equal(radix: int) -> float:
    """The weight of each split where all weigh the same; a gate that is half open."""
    return 1 / max(radix, 2)


def _alike(radix: int) -> str:
    return "half open" if radix == 1 else "where all are alike"


def _weight(radix: int, split: int) -> str:
    if radix == 1:
        return "Gate of each channel (radix 1)"
    return f"Weight of split {split + 1} of {radix}"


def _selectivity(radix: int) -> str:
    if radix == 1:
        return "Selectivity, mean of the channels: 0 where gates are half open, 1 open or closed"
    return "Selectivity, mean of the channels: 0 where all splits are alike, 1 where one takes all"


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize="small")


def _name_blocks(axes: Axes, names: list[str]) -> None:
    step = -(-len(names) // 30)  # so many names have room
    rotation = 90 if len(names) > 10 else 0
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=rotation)


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    _title(axes, title)

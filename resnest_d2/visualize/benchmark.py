"""Measurements as a table and as a chart."""

import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from ..benchmark import Measurement
from ..checkpoint.atomic import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["measurement_table", "part_table", "plot_measurements"]


def measurement_table(measured: Sequence[Measurement], reference: str, *, form: str) -> str:
    """One line a network.

    Args:
        reference: whose time the ratios are of.
        form: of ``tabulate``: ``"simple"``, ``"github"``.
    """
    timed, trained = bool(measured[0].latency_ms), measured[0].saved is not None
    headers = ["network", "M params", "G multiply-adds"]
    if timed:
        headers += ["ms", "ms, range", f"x, against {reference}", "x, range", "peak MiB"]
    if trained:
        headers += ["saved MiB"]
    rows = []
    for m in measured:
        row = [m.name, f"{m.params / 1e6:.2f}", number_text(m.multiply_adds, 1e9, ".3f")]
        if timed:
            row += [f"{m.median_ms:.1f}", range_text(m.latency_ms, ".1f"), f"{m.ratio:.2f}"]
            row += [range_text(m.ratios, ".2f"), number_text(m.peak, 2**20, ".0f")]
        if trained:
            row += [number_text(m.saved, 2**20, ".0f")]
        rows.append(row)
    alignment = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers, tablefmt=form, colalign=alignment, disable_numparse=True)


def part_table(measured: Sequence[Measurement], *, form: str) -> str:
    """Milliseconds by part of the detectors among the measured; empty where there is none."""
    detectors = [m for m in measured if m.parts_ms]
    if not detectors:
        return ""
    parts = {part: None for m in detectors for part in m.parts_ms}
    rows = [
        [part, *(number_text(m.parts_ms.get(part), 1, ".1f") for m in detectors)] for part in parts
    ]
    rows += [["all", *(f"{sum(m.parts_ms.values()):.1f}" for m in detectors)]]
    headers = ["ms by part", *(m.name for m in detectors)]
    alignment = ["left", *["right"] * len(detectors)]
    return tabulate(rows, headers, tablefmt=form, colalign=alignment, disable_numparse=True)


def plot_measurements(
    measured: Sequence[Measurement], path: str | os.PathLike, *, title: str, note: str
) -> None:
    """A PNG of bars: latency with its range and, in training, memory kept for the backward pass.

    Args:
        title: what was measured.
        note: hardware and versions, below.
    """
    from matplotlib.figure import Figure

    panels = 1 if measured[0].saved is None else 2
    figure = Figure(figsize=(4.4 + 4.4 * panels, 1.6 + 0.32 * len(measured)), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    positions = range(len(measured))
    medians = [m.median_ms for m in measured]
    low = [m.median_ms - min(m.latency_ms) for m in measured]
    high = [max(m.latency_ms) - m.median_ms for m in measured]
    bars = axes[0].barh(positions, medians, xerr=(low, high), color="#3b6ea5", ecolor="#888888")
    axes[0].bar_label(bars, [f" {m:.0f}" for m in medians], padding=3)
    axes[0].set_xlabel("milliseconds: median and range")
    axes[0].set_yticks(positions, [m.name for m in measured])
    axes[0].invert_yaxis()
    if panels == 2:
        memory = [m.saved / 2**20 for m in measured]
        bars = axes[1].barh(positions, memory, color="#c98b3b")
        axes[1].bar_label(bars, [f" {mebibytes:.0f}" for mebibytes in memory])
        axes[1].set_xlabel("MiB kept for the backward pass")
    for axis in axes:
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    save_chart(figure, path, title=title, note=note)


def save_chart(figure: "Figure", path: str | os.PathLike, *, title: str, note: str) -> None:
    """Write a chart as PNG, with what was measured above it and on what, in small print, below."""
    from .fonts import any_script  # matplotlib's import takes its time

    figure.suptitle(title)
    characters = int(15 * figure.get_figwidth())  # that fit on a line
    figure.supxlabel(textwrap.fill(note, characters), fontsize=7, color="#555555")
    with writing(path) as file, any_script(figure):
        figure.savefig(file, format="png", dpi=120)


def number_text(value: float | None, unit: float, form: str) -> str:
    """The value in its unit; a dash where there is none."""
    return "–" if value is None else format(value / unit, form)


def range_text(values: Sequence[float], form: str) -> str:
    """The least and the largest."""
    return f"{min(values):{form}}–{max(values):{form}}"

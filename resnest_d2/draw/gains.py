"""Gains of a comparison of runs as a chart.

Filled and dark where the interval excludes 0, hollow and grey where not: readable without colours.
"""

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..analysis.comparing.comparison import Comparison, Gain
from ..analysis.task_texts import TASKS
from .charts import literal, save_chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS = 40  # classes
_GAP = ("", Gain(*[math.nan] * 5))  # an empty line between groups


def plot_gains(comparison: Comparison, path: str | os.PathLike, *, title: str, note: str) -> None:
    """Write a PNG of the gains with their intervals: overall, by size, by class.

    Of more than 40 classes it has those with the largest gains and losses. ``note`` is small print.
    """
    from matplotlib.figure import Figure

    tasks = comparison.tasks
    gains = {name: g.gain for name, g in next(iter(tasks.values())).classes.items()}
    known = {name: gain for name, gain in gains.items() if not math.isnan(gain)}
    largest = sorted(known, key=lambda name: -abs(known[name]))[:_BARS]
    classes = sorted(largest, key=lambda name: -known[name])
    size = (1.6 + 3.6 * len(tasks), 1.9 + 0.27 * (8 + len(classes)))
    figure = Figure(figsize=size, layout="constrained")
    columns = figure.subplots(1, len(tasks), squeeze=False)[0]
    names = f"{comparison.other.name} - {comparison.baseline.name}"
    for axes, (task, found) in zip(columns, tasks.items(), strict=True):
        text = TASKS[task]
        overall, by_size = [], []
        for name, gain in found.metrics.items():
            (by_size if name in text.sizes else overall).append((text.metric_name(name), gain))
        groups = [*overall, _GAP, *by_size, _GAP] if by_size else [*overall, _GAP]
        draw_gains(axes, [*groups, *((literal(name), found.classes[name]) for name in classes)])
        axes.set_title(text.name, fontsize=10)
        axes.set_xlabel(literal(f"gain in {text.unit}, {names}"), fontsize=8)
    save_chart(figure, path, title=literal(title), note=literal(note))


def draw_gains(axes: "Axes", bars: Sequence[tuple[str, Gain]]) -> None:
    """Draw names, gains and intervals into matplotlib axes, from top to bottom."""
    for row, (_, gain) in enumerate(bars):
        if math.isnan(gain.gain):
            continue
        color, fill, width = "#8c8c8c", "white", 1.2
        if gain.is_clear:
            color, fill, width = "#0b559f", "#0b559f", 2.2
        axes.plot([gain.low, gain.high], [row, row], color=color, linewidth=width)
        axes.plot(gain.gain, row, "o", color=color, markerfacecolor=fill, ms=6)
    axes.axvline(0, color="black", linewidth=0.8)
    named = {row: name for row, (name, _) in enumerate(bars) if name}
    axes.set_yticks(list(named), list(named.values()), fontsize=8)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)

"""Gains of a comparison of runs as a chart.

Filled and dark: the interval excludes 0; hollow and grey: it does not. So it can be read in print
and without seeing colours.
"""

import math
import os
from collections.abc import Sequence

from ..analysis.comparison import Comparison, Gain, TaskComparison
from ..analysis.comparison_text import METRIC_NAMES, TASK_NAMES
from .charts import save_chart
from .labels import literal

__all__ = ["plot_gains"]

_BARS = 40  # classes
_CLEAR, _UNCLEAR = "#0b559f", "#8c8c8c"


def plot_gains(comparison: Comparison, path: str | os.PathLike, *, title: str, note: str) -> None:
    """A PNG of the gains with their intervals: overall, by size, by class.

    Of more than 40 classes those with the largest gains and losses are drawn.

    Args:
        note: small print, below.
    """
    from matplotlib.figure import Figure

    tasks = comparison.tasks
    classes = _shown_classes(next(iter(tasks.values())))
    columns = {task: _bars(found, classes) for task, found in tasks.items()}
    rows = max(map(len, columns.values()))
    size = (1.6 + 3.6 * len(tasks), 1.9 + 0.27 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axis, (task, bars) in zip(axes, columns.items(), strict=True):
        _plot_task(axis, bars)
        axis.set_title(TASK_NAMES[task], fontsize=10)
        names = f"{comparison.other.name} - {comparison.baseline.name}"
        axis.set_xlabel(literal(f"gain in AP, {names}"), fontsize=8)
    save_chart(figure, path, title=literal(title), note=literal(note))


def _plot_task(axis, bars: Sequence[tuple[str, Gain]]) -> None:
    for row, (name, gain) in enumerate(bars):
        if not name or math.isnan(gain.gain):
            continue
        colour, filled = (_CLEAR, True) if gain.is_clear else (_UNCLEAR, False)
        axis.plot([gain.low, gain.high], [row, row], color=colour, linewidth=2.2 if filled else 1.2)
        axis.plot(
            gain.gain, row, "o", color=colour, markerfacecolor=colour if filled else "white", ms=6
        )
    axis.axvline(0, color="black", linewidth=0.8)
    named = [(row, name) for row, (name, _) in enumerate(bars) if name]
    axis.set_yticks([row for row, _ in named], [name for _, name in named], fontsize=8)
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _shown_classes(found: TaskComparison) -> list[str]:
    """Those with the largest gains and losses, the largest gain first."""
    known = {name: g.gain for name, g in found.classes.items() if not math.isnan(g.gain)}
    largest = sorted(known, key=lambda name: -abs(known[name]))[:_BARS]
    return sorted(largest, key=lambda name: -known[name])


def _bars(found: TaskComparison, classes: Sequence[str]) -> list[tuple[str, Gain]]:
    """Names and gains from top to bottom, an empty line between groups."""
    gap = ("", Gain(*[math.nan] * 5))
    metrics = [(METRIC_NAMES.get(name, name), gain) for name, gain in found.metrics.items()]
    shown = [(literal(name), found.classes[name]) for name in classes]
    return [*metrics[:3], gap, *metrics[3:], gap, *shown]

"""A gain at equal cost as a chart: the baselines with their line, and the other model."""

import math
import os
from collections.abc import Mapping

import numpy as np

from ..analysis.comparing.comparison import Comparison
from ..analysis.comparing.equal_cost import EqualCostGain
from ..analysis.task_texts import TASKS
from .charts import RUN_COLORS, literal, save_chart


def plot_equal_cost(
    comparison: Comparison,
    gains: Mapping[str, Mapping[str, EqualCostGain]],
    path: str | os.PathLike,
    *,
    title: str,
    note: str,
) -> None:
    """Write a PNG of the main metric over each cost, a row for each task; each run is a dot.

    Args:
        gains: see :func:`.gains_at_equal_cost`.
        note: small print.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    columns = len(next(iter(gains.values())))
    figure = Figure(figsize=(3.8 * columns, 1 + 3 * len(gains)), layout="constrained")
    panels = figure.subplots(len(gains), columns, squeeze=False)
    names = [side.name for side in (comparison.baseline, *comparison.more_baselines)]
    for row, (task, by_cost) in zip(panels, gains.items(), strict=True):
        first, other, *more = (runs[:, 0] for runs in comparison.tasks[task].draws)
        for axes, (cost_title, found) in zip(row, by_cost.items(), strict=True):
            for name, cost, value, runs in zip(
                names, found.costs, found.values, (first, *more), strict=True
            ):
                axes.plot([cost] * len(runs), runs, ".", color="#8c8c8c", ms=4)
                axes.plot(cost, value, "o", color="#8c8c8c")
                axes.annotate(literal(name), (cost, value), (5, -9), **_SMALL)
            costs = np.geomspace(*_ends([*found.costs, found.cost]), 20)
            axes.plot(
                costs, found.line + found.slope * np.log(costs / found.cost), "--", color="#8c8c8c"
            )
            axes.plot([found.cost] * len(other), other, ".", color=RUN_COLORS[0], ms=4)
            axes.plot(found.cost, other.mean(), "D", color=RUN_COLORS[0])
            axes.annotate(
                literal(comparison.other.name), (found.cost, other.mean()), (6, 6), **_SMALL
            )
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            ticks = sorted({*found.costs, found.cost})
            axes.set_xticks(
                ticks,
                [f"{t:.0f}" if t > 99 else f"{t:.3g}" for t in ticks],
                fontsize=7,
                rotation=45,
            )
            axes.set_xlabel(cost_title, fontsize=8)
            axes.set_ylabel(f"{TASKS[task].main} ({TASKS[task].name})", fontsize=8)
            axes.margins(x=0.2, y=0.2)
            axes.spines[["top", "right"]].set_visible(False)
    save_chart(figure, path, title=literal(title), note=literal(note))


_SMALL = {"textcoords": "offset points", "fontsize": 7}


def _ends(values: list[float]) -> tuple[float, float]:
    """The lowest and highest value, and a tenth more to both sides."""
    return min(values) / math.exp(0.1), max(values) * math.exp(0.1)

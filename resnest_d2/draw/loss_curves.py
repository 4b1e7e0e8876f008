"""Training curves from the ``metrics.json`` that Detectron2 writes, one JSON object per line.

A history is the list of these lines.
"""

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from ..analysis.run_folder import read_history
from .charts import MARKERS, RUN_COLORS, short_name
from .fonts import any_script

_METRICS = {
    "bbox/AP": "box AP",
    "segm/AP": "mask AP",
    "keypoints/AP": "keypoint AP",
    "panoptic_seg/PQ": "PQ",
    "sem_seg/mIoU": "mIoU",
    "classification/top1": "top-1",
}
_METRIC = re.compile(f"(?:(.+)/)?({'|'.join(_METRICS)})")  # after a data set's name, or alone
_LOSS = "total_loss"
_CURVES = 24  # of a kind in a chart

History = Iterable[Mapping[str, Any]]


def plot_losses(metrics_json: str | os.PathLike, chart: str | os.PathLike) -> None:
    """Draw the losses of a run and the main metric of each task and data set, as PNG.

    Args:
        chart: file to write.

    Raises:
        ValueError: the file holds no loss.
    """
    lines = read_history(metrics_json)
    if _LOSS not in _series(lines):
        raise ValueError(f"{metrics_json} holds no {_LOSS}: nothing was trained yet")
    figure = draw_losses(lines)
    with any_script(figure):
        figure.savefig(chart, dpi=120)


def draw_losses(history: History) -> Figure:
    """The total loss, its parts, and the metrics of one run, which has a ``total_loss``."""
    series = _series(history)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    parts = sorted(name for name in series if name.startswith("loss_"))
    for name in [_LOSS, *parts[:_CURVES]]:
        width = 2.5 if name == _LOSS else 1.2
        axes.plot(*series[name], label=short_name(name.replace("_", " ")), linewidth=width)
    axes.set(xlabel="iteration", ylabel="loss (median of 20 iterations)")
    _log_scale(axes)
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    if len(parts) > _CURVES:
        axes.set_title(f"{_CURVES} of {len(parts)} parts", fontsize="small")
    if evaluated := _evaluated(series):
        right = axes.twinx()
        right.set(ylabel=_kinds(evaluated), ylim=(0, 100))
        for name, marker in zip(evaluated, itertools.cycle(MARKERS)):
            label = _metric_text(name).replace(" (", "\n(", 1)
            right.plot(*series[name], f"{marker}--k", label=label, markersize=4)
        more_handles, more_labels = right.get_legend_handles_labels()
        handles, labels = handles + more_handles, labels + more_labels
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure


def draw_total_losses(histories: Sequence[History]) -> Figure | None:
    """The total losses of runs in one chart, in :data:`RUN_COLORS`; None if there are none."""
    found = [_series(history) for history in histories]
    if not any(_LOSS in series for series in found):
        return None
    figure, axes = _small_chart()
    for series, color in zip(found, RUN_COLORS, strict=False):
        if _LOSS in series:
            axes.plot(*series[_LOSS], color=color, linewidth=1.6)
    axes.set_ylabel("total loss (median of 20 iterations)")
    _log_scale(axes)
    return figure


def draw_metrics(histories: Sequence[History]) -> Figure | None:
    """The metrics of runs in one chart, None if there are none.

    Each run has its colour and marker, each metric its line style.
    """
    found = [_series(history) for history in histories]
    evaluated = sorted({name for series in found for name in _evaluated(series)})[:_CURVES]
    if not evaluated:
        return None
    figure, axes = _small_chart()
    lines = dict(zip(evaluated, itertools.cycle(("-", "--", ":", "-."))))
    for series, color, marker in zip(found, RUN_COLORS, MARKERS, strict=False):
        for name in filter(series.__contains__, evaluated):
            axes.plot(*series[name], lines[name], color=color, marker=marker, markersize=5)
    axes.set(ylabel=_kinds(evaluated), ylim=(0, None))
    handles = [Line2D([], [], color="black", linestyle=line) for line in lines.values()]
    axes.legend(handles, map(_metric_text, evaluated), fontsize="small")
    return figure


def _small_chart() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 3.3), layout="constrained")
    axes = figure.add_subplot(xlabel="iteration")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _log_scale(axes: Axes) -> None:
    """With plain numbers, also where the values span less than a factor of ten."""
    if axes.dataLim.ymax <= 0:  # no loss that such a scale has
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _series(history: History) -> dict[str, np.ndarray]:
    """Iterations and values (2, N) of each number in the lines."""
    series: dict[str, dict[int, float]] = {}
    for line in history:
        for name, value in line.items():
            if isinstance(value, (int, float)):
                series.setdefault(name, {})[line.get("iteration", 0)] = value
    return {name: np.array(sorted(points.items())).T for name, points in series.items()}


def _evaluated(series: Mapping[str, np.ndarray]) -> list[str]:
    return sorted(filter(_METRIC.fullmatch, series))[:_CURVES]


def _kinds(metrics: Sequence[str]) -> str:
    return ", ".join(sorted({name.rpartition("/")[2] for name in metrics}))


def _metric_text(name: str) -> str:
    data_set, metric = _METRIC.fullmatch(name).groups()
    return _METRICS[metric] + (f" ({short_name(data_set[-24:])})" if data_set else "")

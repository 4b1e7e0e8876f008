"""Training curves from the ``metrics.json`` that Detectron2 writes."""

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

from ..analysis.evaluated_run import read_history
from .fonts import any_script
from .labels import short_name

__all__ = [
    "MARKERS",
    "RUN_COLORS",
    "draw_losses",
    "draw_metrics",
    "draw_total_losses",
    "plot_losses",
]

_METRICS = {
    "bbox/AP": "box AP",
    "segm/AP": "mask AP",
    "keypoints/AP": "keypoint AP",
    "panoptic_seg/PQ": "PQ",
    "sem_seg/mIoU": "mIoU",
}
_METRIC = re.compile(f"(?:(.+)/)?({'|'.join(_METRICS)})")  # behind a data set's name, or alone
MARKERS = "osD^v<>P"
RUN_COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#000000",
    "#7f7f7f",
)
"""Of runs side by side: Okabe and Ito's, the darkest first; with :data:`MARKERS` for print."""

_LOSS = "total_loss"


def plot_losses(metrics_json: str | os.PathLike, picture: str | os.PathLike) -> None:
    """Draw the total loss and its parts over iterations, and what was evaluated, as PNG.

    That is the main metric of each task (AP, PQ, mIoU), of each data set where there are several.

    Args:
        metrics_json: a run's ``metrics.json`` (one JSON object a line).
        picture: file to write.

    Raises:
        ValueError: the file holds no loss.
    """
    lines = read_history(metrics_json)
    if _LOSS not in _series(lines):
        raise ValueError(f"{metrics_json} holds no {_LOSS}: nothing was trained yet")
    figure = draw_losses(lines)
    with any_script(figure):
        figure.savefig(picture, dpi=120)


def draw_losses(history: Iterable[Mapping[str, Any]]) -> Figure:
    """The chart of :func:`plot_losses`.

    Args:
        history: the lines of a ``metrics.json``, at least one of them with a ``total_loss``.
    """
    series = _series(history)
    parts = sorted(name for name in series if name.startswith("loss_"))
    evaluated = _evaluated(series)

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in [_LOSS, *parts]:
        width = 2.5 if name == _LOSS else 1.2
        axes.plot(*series[name], label=short_name(name.replace("_", " ")), linewidth=width)
    axes.set(xlabel="iteration", ylabel="loss (median of 20 iterations)")
    _log_scale(axes)
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    if evaluated:
        right = axes.twinx()
        kinds = sorted({name.rpartition("/")[2] for name in evaluated})
        right.set(ylabel=", ".join(kinds), ylim=(0, 100))
        for number, name in enumerate(evaluated):
            style = f"{MARKERS[number % len(MARKERS)]}--k"
            label = _metric_text(name).replace(" (", "\n(", 1)
            right.plot(*series[name], style, label=label, markersize=4)
        more_handles, more_labels = right.get_legend_handles_labels()
        handles, labels = handles + more_handles, labels + more_labels
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure


def draw_total_losses(histories: Sequence[Iterable[Mapping[str, Any]]]) -> Figure | None:
    """The total losses of runs in one chart, each in its of :data:`RUN_COLORS`; None without any.

    Args:
        histories: of each run the lines of its ``metrics.json``.
    """
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


def draw_metrics(histories: Sequence[Iterable[Mapping[str, Any]]]) -> Figure | None:
    """What was evaluated in training, of runs in one chart; None without any.

    A run has its of :data:`RUN_COLORS` and :data:`MARKERS`, a metric its line.
    """
    found = [_series(history) for history in histories]
    evaluated = sorted({name for series in found for name in _evaluated(series)})
    if not evaluated:
        return None
    figure, axes = _small_chart()
    lines = dict(zip(evaluated, itertools.cycle(("-", "--", ":", "-."))))
    for series, color, marker in zip(found, RUN_COLORS, MARKERS, strict=False):
        for name in filter(series.__contains__, evaluated):
            axes.plot(*series[name], lines[name], color=color, marker=marker, markersize=5)
    axes.set(ylabel="AP", ylim=(0, None))
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
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _series(history: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Iterations and values (2, N) of each number that the lines have."""
    series: dict[str, dict[int, float]] = {}
    for line in history:
        for name, value in line.items():
            if isinstance(value, (int, float)):
                series.setdefault(name, {})[line.get("iteration", 0)] = value
    return {name: np.array(sorted(points.items())).T for name, points in series.items()}


def _evaluated(series: Mapping[str, np.ndarray]) -> list[str]:
    return sorted(filter(_METRIC.fullmatch, series))


def _metric_text(name: str) -> str:
    data_set, metric = _METRIC.fullmatch(name).groups()
    return _METRICS[metric] + (f" ({short_name(data_set[-24:])})" if data_set else "")

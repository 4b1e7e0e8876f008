"""Training curves from the ``metrics.json`` that Detectron2 writes."""

import json
import os
import re
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["plot_losses"]

_METRICS = {
    "bbox/AP": "box AP",
    "segm/AP": "mask AP",
    "keypoints/AP": "keypoint AP",
    "panoptic_seg/PQ": "PQ",
    "sem_seg/mIoU": "mIoU",
}
_METRIC = re.compile(f"(?:(.+)/)?({'|'.join(_METRICS)})")  # behind a data set's name, or alone
_MARKERS = "osD^v<>P"


def plot_losses(metrics_json: str | os.PathLike, picture: str | os.PathLike) -> None:
    """Draw the total loss and its parts over iterations, and what was evaluated, as PNG.

    That is the main metric of each task (AP, PQ, mIoU), of each data set where there are several.

    Args:
        metrics_json: a run's ``metrics.json`` (one JSON object a line).
        picture: file to write.

    Raises:
        ValueError: the file holds no loss.
    """
    series: dict[str, dict[int, float]] = {}
    for text in Path(metrics_json).read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # a run that was killed leaves half a line
            continue
        for name, value in line.items():
            if isinstance(value, (int, float)):
                series.setdefault(name, {})[line.get("iteration", 0)] = value
    parts = sorted(name for name in series if name.startswith("loss_"))
    if "total_loss" not in series:
        raise ValueError(f"{metrics_json} holds no total_loss: nothing was trained yet")
    evaluated = sorted(filter(_METRIC.fullmatch, series))

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in ["total_loss", *parts]:
        iterations, values = zip(*sorted(series[name].items()), strict=True)
        width = 2.5 if name == "total_loss" else 1.2
        axes.plot(iterations, values, label=name.replace("_", " "), linewidth=width)
    axes.set(xlabel="iteration", ylabel="loss (median of 20 iterations)")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    if evaluated:
        right = axes.twinx()
        kinds = sorted({name.rpartition("/")[2] for name in evaluated})
        right.set(ylabel=", ".join(kinds), ylim=(0, 100))
        for number, name in enumerate(evaluated):
            points = np.array(sorted(series[name].items()))
            style = f"{_MARKERS[number % len(_MARKERS)]}--k"
            data_set, metric = _METRIC.fullmatch(name).groups()
            label = _METRICS[metric] + (f"\n({data_set[-24:]})" if data_set else "")
            right.plot(points[:, 0], points[:, 1], style, label=label, markersize=4)
        more_handles, more_labels = right.get_legend_handles_labels()
        handles, labels = handles + more_handles, labels + more_labels
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    figure.savefig(picture, dpi=120)

"""Charts of a report: precision and recall by class, kinds of mistakes, confusion matrix.

Runs differ in colour, marker and hatching; which is which is said beside the chart. hotcoco draws
charts of one evaluation; these have all runs beside each other, and show names as they are.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..analysis.mistakes import ERRORS, Analysis, Outcome
from ..evaluation import Accuracy
from .labels import short_name
from .loss_curves import MARKERS, RUN_COLORS

__all__ = ["draw_confusion", "draw_errors", "draw_precision", "most_confused"]

_HATCHES = ("", "//", "..", "\\\\", "xx", "--", "++", "oo")
_NUMBERED = 14  # classes of a matrix whose cells have numbers


def draw_precision(
    accuracies: Sequence[Accuracy], analyses: Sequence[Analysis], number: int
) -> Figure:
    """Precision over recall of a class at IoU 0.5, a line a run, with its marker at the threshold.

    Args:
        accuracies, analyses: of the runs, of one task.
        number: of the class.
    """
    figure = Figure(figsize=(2.5, 2.2), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1.02), ylim=(0, 1.04))
    for accuracy, analysis, color, marker in zip(
        accuracies, analyses, RUN_COLORS, MARKERS, strict=False
    ):
        axes.plot(accuracy.recalls, accuracy.precision[number], color=color, linewidth=1.6)
        objects, found, detections = analysis.by_class[analysis.category_ids[number]]
        if objects and detections:
            at = found / objects, found / detections
            axes.plot(*at, marker, color=color, markersize=7, markeredgecolor="white", zorder=3)
    axes.set_xlabel("recall", fontsize=9)
    axes.set_ylabel("precision", fontsize=9)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_errors(values: Sequence[Mapping[Outcome, float]], label: str, form: str) -> Figure:
    """Bars of a number of each kind of mistake, one a run.

    Args:
        values: of the runs.
        label: what the number is.
        form: how to write it.
    """
    size = (4.8, 0.9 + len(ERRORS) * (0.2 + 0.2 * len(values)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot(xlabel=label)
    places, height = np.arange(len(ERRORS)), 0.8 / len(values)
    for run, own in enumerate(values):
        at = places - 0.4 + (run + 0.5) * height
        look = {"color": RUN_COLORS[run], "hatch": _HATCHES[run], "edgecolor": "white"}
        bars = axes.barh(at, [own[error] for error in ERRORS], height, **look)
        axes.bar_label(bars, [format(own[error], form) for error in ERRORS], padding=3, fontsize=9)
    axes.set_yticks(places, [error.value.replace(" and ", "\nand ") for error in ERRORS])
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_confusion(analysis: Analysis, classes: Sequence[tuple[int, str]]) -> Figure:
    """What objects of each class were taken for, as a share of them.

    Args:
        classes: number and name of each class to draw.
    """
    background = len(analysis.confusion) - 1
    shown = [number for number, _ in classes] + [background]
    counts = analysis.confusion[np.ix_(shown, shown)]
    sums = analysis.confusion[shown].sum(axis=1, keepdims=True)
    shares = counts / np.maximum(sums, 1)
    side = 2.2 + 0.42 * len(shown) if len(shown) <= _NUMBERED + 1 else 2.2 + 0.24 * len(shown)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the row", fraction=0.05, pad=0.02)
    names = [short_name(name, 24) for _, name in classes]
    places = range(len(shown))
    axes.set_xticks(places, [*names, "no detection"], rotation=45, ha="right", fontsize=8)
    axes.set_yticks(places, [*names, "no object"], fontsize=8)
    axes.set(xlabel="detected as", ylabel="object of class")
    if len(shown) <= _NUMBERED + 1:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, count, ha="center", va="center", fontsize=8, color=color)
    return figure


def most_confused(analysis: Analysis, count: int) -> list[tuple[int, int, int]]:
    """The most frequent pairs: numbers of the object's class and of the detection's, how often."""
    classes = analysis.confusion[:-1, :-1].copy()
    np.fill_diagonal(classes, 0)
    order = np.argsort(-classes, axis=None, kind="stable")[:count]
    pairs = (np.unravel_index(place, classes.shape) for place in order)
    return [(int(a), int(b), int(classes[a, b])) for a, b in pairs if classes[a, b]]

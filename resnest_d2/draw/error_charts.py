"""Charts of a report: precision and recall by class, kinds of mistakes, confusion matrix.

Runs differ in colour, marker and hatching; the page names them beside the chart. hotcoco's own
charts show one evaluation each.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..analysis.mistakes import ERRORS, Analysis, Outcome
from ..evaluation import Accuracy
from .charts import MARKERS, RUN_COLORS, short_name

_HATCHES = ("", "//", "..", "\\\\", "xx", "--", "++", "oo")
_CONFUSED = 30  # classes in a confusion matrix
_NUMBERED = 14  # a matrix of more classes has no numbers in its cells


def draw_precision(
    accuracies: Sequence[Accuracy], analyses: Sequence[Analysis], number: int
) -> Figure:
    """Precision over recall at IoU 0.5 of class ``number``, one line per run of one task.

    The marker is at the score threshold of the analyses.
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
    """Bars of one number per run and kind of mistake, named ``label`` and formatted by ``form``."""
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


def most_wrong(matrix: np.ndarray, classes: int) -> list[int]:
    """The classes with the most mistakes in a confusion matrix, thirty at most, ascending.

    Args:
        classes: their number; rows and columns after them are of no class.
    """
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    return sorted(sorted(range(classes), key=lambda number: -wrong[number])[:_CONFUSED])


def draw_confusion(
    matrix: np.ndarray,
    classes: Mapping[int, str],
    *,
    rows: str,
    columns: str,
    outside: tuple[str, str] | None = None,
    percent: bool = False,
) -> Figure:
    """The confusion matrix of some classes, by number and name, as shares of their rows.

    Args:
        rows, columns: what they are.
        outside: names of the last row and the last column, if these are of no class.
        percent: write shares into the cells instead of numbers, which are large for pixels.
    """
    shown = [*classes, len(matrix) - 1] if outside else list(classes)
    counts = matrix[np.ix_(shown, shown)]
    shares = counts / np.maximum(matrix[shown].sum(axis=1, keepdims=True), 1)
    numbered = len(classes) <= _NUMBERED
    side = 2.2 + (0.42 if numbered else 0.24) * len(shown)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    heat = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(heat, ax=axes, label="share of the row", fraction=0.05, pad=0.02)
    names = [short_name(name, 24) for name in classes.values()]
    row, column = ([name] for name in outside) if outside else ([], [])
    places = range(len(shown))
    axes.set_xticks(places, [*names, *column], rotation=45, ha="right", fontsize=8)
    axes.set_yticks(places, [*names, *row], fontsize=8)
    axes.set(xlabel=columns, ylabel=rows)
    texts = np.rint(100 * shares).astype(int) if percent else counts
    for (row, column), text in np.ndenumerate(texts):
        if numbered and text:
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    return figure

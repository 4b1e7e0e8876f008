"""Cost over one quantity as a table and as a chart."""

import os
import textwrap
from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from ..benchmark import ProcessTimes, Scaling
from .benchmark import number_text, range_text, save_chart

__all__ = ["plot_scalings", "process_table", "scaling_table"]


def scaling_table(scalings: Sequence[Scaling], *, form: str) -> str:
    """One line a quantity: its values, the times, the fitted exponents.

    Args:
        form: of ``tabulate``: ``"simple"``, ``"github"``.
    """
    rows = []
    for s in scalings:
        rows.append(
            [
                s.quantity,
                s.what,
                ", ".join(map(str, s.values)),
                ", ".join(f"{median:.0f}" for median in s.medians_ms),
                f"{s.exponent:.2f}",
                range_text(s.exponents, ".2f"),
                number_text(s.multiply_adds_exponent, 1, ".2f"),
            ]
        )
    headers = ["quantity", "of", "values", "ms", "exponent", "range", "of multiply-adds"]
    return tabulate(rows, headers, tablefmt=form, disable_numparse=True)


def process_table(times: ProcessTimes, *, form: str) -> str:
    """Parts of a step on several processes, in milliseconds, and what their formula expects."""
    kinds = {
        "one alone": times.alone_ms,
        "all, without exchange": times.together_ms,
        "all, synchronised": times.synchronised_ms,
        "exchange alone": times.all_reduce_ms,
    }
    rows = [[kind, f"{np.median(own):.0f}", range_text(own, ".0f")] for kind, own in kinds.items()]
    rows += [["synchronised, by the formula", f"{times.expected_ms:.0f}", "–"]]
    headers = [f"training step, {times.processes} processes", "ms", "ms, range"]
    alignment = ("left", "right", "right")
    return tabulate(rows, headers, tablefmt=form, colalign=alignment, disable_numparse=True)


def plot_scalings(
    scalings: Sequence[Scaling], path: str | os.PathLike, *, title: str, note: str
) -> None:
    """A PNG with a panel a quantity: time over the quantity, both logarithmic, and the fit.

    Args:
        title: what was measured.
        note: hardware and versions, below.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    columns = min(4, len(scalings))
    rows = -(-len(scalings) // columns)
    figure = Figure(figsize=(3.6 * columns, 0.9 + 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, s in zip(panels, scalings, strict=False):
        values, medians = np.asarray(s.values), np.asarray(s.medians_ms)
        spread = medians - np.min(s.latency_ms, axis=1), np.max(s.latency_ms, axis=1) - medians
        axes.errorbar(values, medians, yerr=spread, fmt="o", color="#3b6ea5", ecolor="#888888")
        middle = np.exp(np.log(medians).mean() - s.exponent * np.log(values).mean())
        axes.plot(values, middle * values**s.exponent, color="#c98b3b")
        axes.set_xscale("log")
        axes.set_yscale("log")
        names = [EngFormatter(places=0, sep="").format_eng(value) for value in values]
        axes.set_xticks(values, names, fontsize=8)
        axes.set_ylim(medians.min() / 2, medians.max() * 2)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:.0f}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
        axes.set(title=f"{s.quantity}: exponent {s.exponent:.2f}", ylabel="milliseconds")
        axes.set_xlabel(textwrap.fill(s.what, 45), fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(scalings) :]:
        axes.remove()
    save_chart(figure, path, title=title, note=note)

"""Measurements as charts: bars side by side, and time over one quantity."""

import os
import textwrap
from collections.abc import Sequence

import numpy as np

from ..benchmark import Measurement, Scaling
from .charts import save_chart


def plot_measurements(
    measured: Sequence[Measurement], path: str | os.PathLike, *, title: str, note: str
) -> None:
    """Write a PNG of latency with its range and, in training, memory for the backward pass.

    ``note``, in small print, is for hardware and versions.
    """
    from matplotlib.figure import Figure

    panels = 1 if measured[0].saved is None else 2
    figure = Figure(figsize=(4.4 + 4.4 * panels, 1.6 + 0.32 * len(measured)), layout="constrained")
    latency, *memory = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    rows = range(len(measured))
    medians = [m.median_ms for m in measured]
    low = [m.median_ms - min(m.latency_ms) for m in measured]
    high = [max(m.latency_ms) - m.median_ms for m in measured]
    bars = latency.barh(rows, medians, xerr=(low, high), color="#3b6ea5", ecolor="#888888")
    latency.bar_label(bars, [f" {m:.0f}" for m in medians], padding=3)
    latency.set_xlabel("milliseconds: median and range")
    latency.set_yticks(rows, [m.name for m in measured])
    latency.invert_yaxis()
    for axes in memory:
        saved = [m.saved / 2**20 for m in measured]
        bars = axes.barh(rows, saved, color="#c98b3b")
        axes.bar_label(bars, [f" {mebibytes:.0f}" for mebibytes in saved])
        axes.set_xlabel("MiB kept for the backward pass")
    for axes in (latency, *memory):
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    save_chart(figure, path, title=title, note=note)


def plot_scalings(
    scalings: Sequence[Scaling], path: str | os.PathLike, *, title: str, note: str
) -> None:
    """Write a PNG of time over each quantity, both logarithmic, with the fit.

    ``note``, in small print, is for hardware and versions.
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
        axes.set(xscale="log", yscale="log")
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

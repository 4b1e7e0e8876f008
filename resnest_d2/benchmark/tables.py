"""Measurements as text tables."""

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from ..text import text_table
from .distributed import ProcessTimes
from .measure import Measurement
from .scaling import Scaling


def measurement_table(measured: Sequence[Measurement], reference: str, *, form: str) -> str:
    """One row per network.

    Args:
        reference: the baseline for the ratios.
        form: of ``tabulate``: ``"simple"``, ``"github"``.
    """
    timed, trained = bool(measured[0].latency_ms), measured[0].saved is not None
    headers = ["network", "M params", "G multiply-adds"]
    if timed:
        headers += ["ms", "ms, range", f"x, against {reference}", "x, range", "peak MiB"]
    if trained:
        headers += ["saved MiB"]
    rows = []
    for m in measured:
        row = [m.name, f"{m.params / 1e6:.2f}", number_text(m.multiply_adds, 1e9, ".3f")]
        if timed:
            row += [f"{m.median_ms:.1f}", range_text(m.latency_ms, ".1f"), f"{m.ratio:.2f}"]
            row += [range_text(m.ratios, ".2f"), number_text(m.peak, 2**20, ".0f")]
        if trained:
            row += [number_text(m.saved, 2**20, ".0f")]
        rows.append(row)
    return text_table(rows, headers, form)


def part_table(measured: Sequence[Measurement], *, form: str) -> str:
    """Milliseconds by part of each config's model; empty without configs."""
    models = [m for m in measured if m.parts_ms]
    if not models:
        return ""
    parts = {part: None for m in models for part in m.parts_ms}
    rows = [
        [part, *(number_text(m.parts_ms.get(part), 1, ".1f") for m in models)] for part in parts
    ]
    rows += [["all", *(f"{sum(m.parts_ms.values()):.1f}" for m in models)]]
    return text_table(rows, ["ms by part", *(m.name for m in models)], form)


def scaling_table(scalings: Sequence[Scaling], *, form: str) -> str:
    """One row per quantity: its values, the times, the fitted exponents."""
    rows = [
        [
            s.quantity,
            s.what,
            ", ".join(map(str, s.values)),
            ", ".join(f"{median:.0f}" for median in s.medians_ms),
            f"{s.exponent:.2f}",
            range_text(s.exponents, ".2f"),
            number_text(s.multiply_adds_exponent, 1, ".2f"),
        ]
        for s in scalings
    ]
    headers = ["quantity", "of", "values", "ms", "exponent", "range", "of multiply-adds"]
    return tabulate(rows, headers, tablefmt=form, disable_numparse=True)


def process_table(times: ProcessTimes, *, form: str) -> str:
    """Milliseconds of a training step on several processes, and of its parts."""
    kinds = {
        "one alone": times.alone_ms,
        "all, without exchange": times.together_ms,
        "all, synchronised": times.synchronised_ms,
        "exchange alone": times.all_reduce_ms,
    }
    rows = [[kind, f"{np.median(own):.0f}", range_text(own, ".0f")] for kind, own in kinds.items()]
    headers = [f"training step, {times.processes} processes", "ms", "ms, range"]
    return text_table(rows, headers, form)


def number_text(value: float | None, unit: float, form: str) -> str:
    """The value in a unit; a dash for None."""
    return "–" if value is None else format(value / unit, form)


def range_text(values: Sequence[float], form: str) -> str:
    return f"{min(values):{form}}–{max(values):{form}}"

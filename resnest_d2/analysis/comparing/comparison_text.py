"""A comparison of runs as sentences and tables, in Markdown."""

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from ...benchmark import RunCost
from ...benchmark.tables import number_text, range_text
from ...text import printable, text_table
from ..task_texts import TASKS
from .comparison import Comparison, Gain
from .equal_cost import EqualCostGain


def comparison_text(
    comparison: Comparison,
    costs: Mapping[str, RunCost] | None = None,
    equal_cost: Mapping[str, Mapping[str, EqualCostGain]] | None = None,
) -> str:
    """The whole comparison: verdicts, tables, cost, and what the intervals are.

    Args:
        costs: of ``"baseline"`` and ``"other"``; None leaves out the cost.
        equal_cost: see :func:`.gains_at_equal_cost`.
    """
    c = comparison
    sides = []
    for side in (c.baseline, c.other):
        runs = f", {len(side.runs)} runs" if len(side.runs) > 1 else ""
        sides.append(f"{side.name} ({side.backbone}{runs})")
    differ = f" The backbones differ in {_changes(c.network)}." if c.network else ""
    parts = [
        f"# {c.other.name} against {c.baseline.name}",
        f"{sides[1]} against {sides[0]}, on {c.images} images.{differ}",
        *(verdict(c, task) for task in c.tasks),
    ]
    if c.changes:
        parts.append(
            "**The runs differ in more than their backbones**, which may explain a gain: "
            f"{_changes(c.changes)}."
        )
    for task, found in c.tasks.items():
        text = TASKS[task]
        metrics = {text.metric_name(name): gain for name, gain in found.metrics.items()}
        parts += [f"## {_title(task)}", gain_table(c, metrics, first="")]
        first = "class" if text.of_class == text.main else f"class ({text.of_class})"
        parts += [gain_table(c, found.classes, first=first)]
        if len(c.baseline.runs) > 1 or len(c.other.runs) > 1:
            values = [(c.baseline, found.baseline_values), (c.other, found.other_values)]
            by_run = [f"{side.name} {', '.join(f'{v:.1f}' for v in own)}" for side, own in values]
            parts.append(f"{text.main} by run: {'; '.join(by_run)}.")
    if costs:
        parts += ["## Cost", cost_table(c, costs)]
        note = "Parameters are of the whole model, multiply-adds of the backbone without its FPN."
        if runs := len(costs["baseline"].latency_ms):
            note += (
                f" Latency: one image, the whole model in PyTorch, {runs} runs in turn, median and "
                "range; random weights, a detector has as many detections as allowed."
            )
        parts.append(note)
    if equal_cost:
        parts += ["## Gain at equal cost", *_equal_cost(c, equal_cost)]
    parts += ["## What the intervals are", _meaning(c)]
    return "\n\n".join(parts)


def verdict(comparison: Comparison, task: str) -> str:
    """One paragraph: the gain of a task, its interval, and the sizes and classes without 0."""
    c, found, names = comparison, comparison.tasks[task], TASKS[task]
    gain, title = found.metrics[names.main], _title(task)
    if math.isnan(gain.gain):
        return f"**{title}**: {names.nothing}, no {names.main}."
    interval = f"{_percent(c.confidence)} interval {_interval(gain)}"
    if gain.is_clear:
        word = "gains {} {} over" if gain.gain > 0 else "loses {} {} against"
        text = (
            f"**{title}**: {c.other.name} {word.format(f'{abs(gain.gain):.1f}', names.main)} "
            f"{c.baseline.name}: {_signed(gain.gain)}, {interval}, which excludes 0."
        )
    else:
        text = (
            f"**{title}**: no difference is shown between {c.other.name} and "
            f"{c.baseline.name}: {_signed(gain.gain)} {names.main}, {interval}, which contains 0."
        )
    groups = {"classes": found.classes}
    if names.sizes:
        sizes = {size: found.metrics[metric] for metric, size in names.sizes.items()}
        groups = {"sizes": sizes, **groups}
    clear = []
    for what, gains in groups.items():
        named = [f"{printable(k)} {_signed(g.gain)}" for k, g in gains.items() if g.is_clear]
        what = f"{what} " if len(groups) > 1 else ""
        clear += [f"{what}{', '.join(named)}"] if named else []
    if clear:
        return f"{text} Among {' and '.join(groups)} 0 is excluded for {'; '.join(clear)}."
    return f"{text} For no {'size or class' if names.sizes else 'class'} is 0 excluded."


def gain_table(comparison: Comparison, gains: Mapping[str, Gain], *, first: str) -> str:
    """One row per metric or class; ``first`` is the title of the first column."""
    rows = [
        [
            _escaped(name),
            *("–" if math.isnan(v) else f"{v:.1f}" for v in (gain.baseline, gain.other)),
            *gain_cells(gain),
        ]
        for name, gain in gains.items()
    ]
    headers = [first, comparison.baseline.name, comparison.other.name]
    headers = [*map(_escaped, headers), *gain_headers(comparison.confidence)]
    return text_table(rows, headers)


def gain_cells(gain: Gain) -> list[str]:
    """A gain, its interval, and "yes" where it excludes 0."""
    return [_signed(gain.gain), _interval(gain), "yes" if gain.is_clear else ""]


def gain_headers(confidence: float) -> list[str]:
    """The titles of the columns of :func:`gain_cells`."""
    return ["gain", f"{_percent(confidence)} interval", "excludes 0"]


def _equal_cost(c: Comparison, equal_cost: Mapping[str, Mapping[str, EqualCostGain]]) -> list[str]:
    """What the line is, and a table for each task."""
    sides = (c.baseline, *c.more_baselines)
    names = ", ".join(f"{_escaped(side.name)} ({len(side.runs)})" for side in sides)
    parts = [
        f"Against a line through {names}, with the numbers of their runs: the metric over the "
        "logarithm of the cost. Costs are taken as exact."
    ]
    for task, gains in equal_cost.items():
        parts += [f"{_title(task)}, {TASKS[task].main}:", equal_cost_table(c, gains)]
    if not all(found.is_between for gains in equal_cost.values() for found in gains.values()):
        parts.append("Extended: the line, to a cost that lies outside of the baselines' costs.")
    return parts


def equal_cost_table(comparison: Comparison, gains: Mapping[str, EqualCostGain]) -> str:
    """One row per kind of cost."""
    c = comparison
    rows = []
    for title, found in gains.items():
        interval = found.gain
        gain = Gain(found.line, found.line + interval.value, *interval)
        rows.append(
            [
                title,
                f"{found.cost:.4g}",
                f"{found.line:.1f}{'' if found.is_between else ' (extended)'}",
                f"{gain.other:.1f}",
                *gain_cells(gain),
            ]
        )
    headers = ["cost", "at", "line", _escaped(c.other.name), *gain_headers(c.confidence)]
    return text_table(rows, headers)


def cost_table(comparison: Comparison, costs: Mapping[str, RunCost]) -> str:
    """One row per side, and the ratios of other to baseline."""
    baseline, other = costs["baseline"], costs["other"]
    timed = bool(baseline.latency_ms)
    counts = {"params": 1e6, "backbone_params": 1e6, "multiply_adds": 1e9}
    headers = ["", "M params", "of the backbone", "G multiply-adds of the backbone", "pixels"]
    headers += ["ms per image", "range", "peak MiB"] if timed else []
    rows = []
    for side, cost in ((comparison.baseline, baseline), (comparison.other, other)):
        row = [_escaped(side.name)]
        row += [f"{getattr(cost, name) / unit:.2f}" for name, unit in counts.items()]
        row += [" x ".join(map(str, cost.size))]
        if timed:
            row += [f"{cost.median_ms:.0f}", range_text(cost.latency_ms, ".0f")]
            row += [number_text(cost.peak, 2**20, ".0f")]
        rows.append(row)
    ratios = [f"{getattr(other, name) / getattr(baseline, name):.2f}" for name in counts]
    row = ["ratio", *ratios, ""]
    if timed:
        slower = [1 / ratio for ratio in other.ratios]  # of runs in the same round
        peaks = other.peak / baseline.peak if other.peak and baseline.peak else None
        row += [f"{1 / other.ratio:.2f}", range_text(slower, ".2f"), number_text(peaks, 1, ".2f")]
    return text_table([*rows, row], headers)


def _meaning(c: Comparison) -> str:
    several = [len(side.runs) for side in (c.baseline, c.other) if len(side.runs) > 1]
    text = (
        f"Images were drawn anew {c.resamples} times, as many as there are, with replacement, the "
        f"same for all runs (seed {c.seed})."
    )
    if several:
        text += (
            " The spread of the runs of one side is added, by a t interval with Welch's degrees "
            "of freedom."
        )
    if len(several) == 1:
        text += " One side has a single run: the intervals do not cover its randomness of training."
    elif not several:
        text += (
            " With one run per side, the intervals cover only the choice of images, not the "
            "randomness of training: another seed may give another gain."
        )
    return text + (
        f" By chance, {_percent(1 - c.confidence)} of the classes without a difference have an "
        "interval that excludes 0."
    )


def _changes(changes: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(
        f"{key} ({value_text(first)} / {value_text(second)})"
        for key, (first, second) in changes.items()
    )


def value_text(value: Any) -> str:
    """A value of a config; for a path its last part, for an empty value "none"."""
    if isinstance(value, str) and value.startswith("/"):
        value = PurePath(value).name
    return printable(value) if value not in ("", None, (), []) else "none"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _title(task: str) -> str:
    return TASKS[task].name.capitalize()


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{round(value, 1) + 0.0:+.1f}"  # no -0.0


def _interval(gain: Gain) -> str:
    return "–" if math.isnan(gain.low) else f"{_signed(gain.low)} to {_signed(gain.high)}"


def _escaped(text: str) -> str:
    return printable(text).replace("|", "\\|")

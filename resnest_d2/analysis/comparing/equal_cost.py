"""The gain over baselines of the same cost: against a line through models of several depths.

A deeper network is better and costs more. The line is the least-squares fit of the baselines'
metric over the logarithm of their cost; the gain is the distance of the other model from it. Costs
are taken as exact: the intervals are those of the metric.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...benchmark import RunCost
from .comparison import Comparison
from .intervals import Interval, interval_of_sum

COSTS = {
    "M params": ("params", 1e6),
    "G multiply-adds of the backbone": ("multiply_adds", 1e9),
    "ms per image": ("median_ms", 1),
}
"""Attributes of a :class:`.RunCost` and their units, by title."""


@dataclass(frozen=True)
class EqualCostGain:
    """A gain at equal cost.

    Attributes:
        gain: with its interval.
        line: the baselines' metric at the other model's cost.
        cost: of the other model.
        costs, values: of the baselines, and their metric, the mean of its runs.
        slope: of the line: metric per factor e in cost.
    """

    gain: Interval
    line: float
    cost: float
    costs: tuple[float, ...]
    values: tuple[float, ...]
    slope: float

    @property
    def is_between(self) -> bool:
        """Whether there is a cheaper and a dearer baseline; else the line is extended."""
        return min(self.costs) <= self.cost <= max(self.costs)


def gain_at_equal_cost(
    baselines: Sequence[np.ndarray],
    other: np.ndarray,
    *,
    costs: Sequence[float],
    cost: float,
    confidence: float,
) -> EqualCostGain:
    """The gain of a model over a line through several.

    Args:
        baselines, other: a metric of their runs, (S, 1 + B) each: see :func:`.interval_of_sum`.
        costs: of the baselines, above 0.
        cost: of the other model.
        confidence: 0-1.

    Raises:
        ValueError: the baselines do not have two different costs.
    """
    if len(set(costs)) < 2:
        raise ValueError(
            f"a line needs baselines of different cost, got {', '.join(map(str, costs))}"
        )
    points = np.stack([np.ones(len(costs)), np.log(costs)], axis=1)
    fit = np.linalg.pinv(points)  # (2, baselines): level and slope from the values
    weights = np.array([1, math.log(cost)]) @ fit
    values = np.array([runs[:, 0].mean() for runs in baselines])
    return EqualCostGain(
        interval_of_sum([*baselines, other], [*-weights, 1.0], confidence),
        line=float(weights @ values),
        cost=cost,
        costs=tuple(costs),
        values=tuple(values.tolist()),
        slope=float(fit[1] @ values),
    )


def gains_at_equal_cost(
    comparison: Comparison, costs: Sequence[RunCost]
) -> dict[str, dict[str, EqualCostGain]]:
    """The gains in the main metric of each task, by task and title of :data:`COSTS`.

    Args:
        comparison: with more baselines.
        costs: of baseline, other and more baselines. What was not measured is left out.

    Raises:
        ValueError: see :func:`gain_at_equal_cost`.
    """
    found: dict[str, dict[str, EqualCostGain]] = {}
    for task, compared in comparison.tasks.items():
        baseline, other, *more = compared.draws
        for title, (attribute, unit) in COSTS.items():
            if attribute == "median_ms" and not costs[0].latency_ms:
                continue
            first, own, *others = (getattr(cost, attribute) / unit for cost in costs)
            found.setdefault(task, {})[title] = gain_at_equal_cost(
                [baseline, *more],
                other,
                costs=[first, *others],
                cost=own,
                confidence=comparison.confidence,
            )
    return found

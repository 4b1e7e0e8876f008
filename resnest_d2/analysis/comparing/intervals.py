"""Confidence intervals of a metric's gain, over the images of the evaluation and over runs.

Two things change a gain: other images, and other seeds. The images are drawn anew with
replacement, many times, the same for all runs (a paired bootstrap). The spread of the runs gives a
t interval with Welch's degrees of freedom. Both are joined by the squares of their distances from
the gain (G. Y. Zou and A. Donner, 2008: the method of variance estimates recovery).

A run's own errors on single images appear in both parts. What they add to the bootstrap is
estimated from the runs of a side, and subtracted there.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit


class Interval(NamedTuple):
    """A value with its interval; NaN where there is none."""

    value: float
    low: float
    high: float


def interval_of_sum(
    groups: Sequence[np.ndarray], weights: Sequence[float], confidence: float
) -> Interval:
    """The weighted sum of the means of groups of runs, such as -1 x baseline + 1 x other.

    A group of one run adds nothing to the part of the runs: the interval covers only the choice of
    images then.

    Args:
        groups: of each, a metric of its S runs, (S, 1 + B): on the data as it is, then on B draws
            of its images; NaN where a draw has no such class.
        weights: one for each group.
        confidence: 0-1.
    """
    sums = sum(w * runs.mean(axis=0) for w, runs in zip(weights, groups, strict=True))
    value, drawn = sums[0], sums[1:]
    known = ~np.isnan(drawn)
    drawn = drawn[known]
    if math.isnan(value) or not drawn.size:
        return Interval(float(value), math.nan, math.nan)
    low, high = np.percentile(drawn, [50 * (1 - confidence), 50 * (1 + confidence)])

    by_runs, by_single, inverse_freedom = 0.0, 0.0, 0.0  # two variances of the sum
    for weight, runs in zip(weights, groups, strict=True):
        if (count := len(runs)) == 1:
            continue
        variance = weight**2 * runs[:, 0].var(ddof=1) / count
        by_runs += variance
        inverse_freedom += variance**2 / (count - 1)
        own = runs[:, 1:][:, known]
        own = (own - own.mean(axis=0)).var(axis=1).sum() / (count - 1)
        by_single += weight**2 * own / count
    width = 0.0
    if inverse_freedom:
        t = stdtrit(by_runs**2 / inverse_freedom, (1 + confidence) / 2)
        width = float(t) * math.sqrt(by_runs)
    by_images = drawn.var()
    share = max(0.0, 1 - by_single / by_images) if by_images else 0.0
    below, above = (math.hypot(math.sqrt(share) * (x - value), width) for x in (low, high))
    # Rounded, because sums of equal values differ in the last bits; + 0.0 makes 0 of -0.
    return Interval(*map(float, np.round([value, value - below, value + above], 9) + 0.0))

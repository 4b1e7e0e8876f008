"""Intervals of gains: their coverage on simulated models, and what they do with little data."""

import math

import numpy as np
import pytest

from resnest_d2.analysis.comparing.intervals import interval_of_sum

IMAGES, DRAWS = 200, 300


def _coverage(
    rng: np.random.Generator, seeds: int, *, pairs: int, of_run: float, of_model: float
) -> float:
    """The share of 95% intervals of the gain that contain 0, for pairs of equal models.

    A model is right on an image with a probability. The images have difficulties that all runs
    share, each model has strengths on single images (their spread is of_model), and each run is
    better or worse on all images (of_run).
    """
    times = rng.multinomial(IMAGES, [1 / IMAGES] * IMAGES, size=DRAWS) / IMAGES
    weights = np.concatenate([np.full((1, IMAGES), 1 / IMAGES), times])
    inside = 0
    for _ in range(pairs):
        difficulty = rng.normal(size=IMAGES)
        groups = []
        for _ in range(2):
            logits = 0.5 + difficulty + rng.normal(0, of_model, IMAGES)
            logits = logits + rng.normal(0, of_run, (seeds, 1))
            right = rng.random((seeds, IMAGES)) < 1 / (1 + np.exp(-logits))
            groups.append(100 * right @ weights.T)
        _, low, high = interval_of_sum(groups, (-1, 1), 0.95)
        inside += low <= 0 <= high
    return inside / pairs


@pytest.mark.slow  # a minute
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("of_run", "of_model"), [(0, 0.5), (0.1, 1.5), (0.2, 0), (1, 0.5)])
def test_95_percent_intervals_of_equal_models_contain_0_in_about_95_percent(
    seeds, of_run, of_model
):
    share = _coverage(
        np.random.default_rng(seeds), seeds, pairs=1000, of_run=of_run, of_model=of_model
    )
    print(f"\n{seeds} seeds, spread of runs {of_run}, of models {of_model}: {1 - share:.1%}")
    assert 0.93 <= share <= 0.985


def test_intervals_of_few_equal_models_contain_0():
    share = _coverage(np.random.default_rng(0), 3, pairs=200, of_run=0.5, of_model=0.5)
    assert 0.92 <= share <= 0.99


def _draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 1, shape)


def test_one_run_each_is_a_percentile_interval_of_the_images():
    groups = _draws(0, 2, 1, 501)
    drawn = groups[1, 0] - groups[0, 0]
    value, low, high = interval_of_sum(groups, (-1, 1), 0.9)
    assert value == pytest.approx(drawn[0], abs=1e-8)
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn[1:], [5, 95])), abs=1e-8)


def test_without_a_choice_of_images_it_is_welchs_t_interval():
    from scipy.stats import ttest_ind

    first, second = np.array([40.0, 41, 43, 40.5]), np.array([44.0, 47, 45])
    groups = [np.repeat(values[:, None], 101, axis=1) for values in (first, second)]
    expected = ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    found = interval_of_sum(groups, (-1, 1), 0.95)
    assert found.value == pytest.approx(45.333333333 - 41.125)
    assert found[1:] == pytest.approx(tuple(expected))


def test_one_side_with_one_run_has_only_the_other_sides_spread():
    several, single = np.repeat([[40.0], [41], [43]], 101, axis=1), np.full((1, 101), 45.0)
    value, low, high = interval_of_sum([several, single], (-1, 1), 0.95)
    width = 4.302653 * math.sqrt(np.var([40, 41, 43], ddof=1) / 3)  # t of 2 degrees of freedom
    assert (low, high) == pytest.approx((value - width, value + width), abs=1e-5)


def test_weights_are_those_of_the_sum():
    groups = [_draws(n, 1, 201) for n in range(3)]
    weights = (-0.25, -0.75, 1)
    value, low, high = interval_of_sum(groups, weights, 0.95)
    sums = sum(w * g[0] for w, g in zip(weights, groups, strict=True))
    assert value == pytest.approx(sums[0], abs=1e-8) and low < sums[1:].mean() < high


def test_draws_without_the_class_are_left_out_and_no_class_has_no_interval():
    groups = _draws(0, 2, 3, 101)
    without = np.concatenate([groups, np.full((2, 3, 7), np.nan)], axis=2)
    assert interval_of_sum(without, (-1, 1), 0.95) == interval_of_sum(groups, (-1, 1), 0.95)
    nothing = interval_of_sum(np.full((2, 3, 101), np.nan), (-1, 1), 0.95)
    assert all(map(math.isnan, nothing))


def test_equal_runs_have_an_interval_of_one_point():
    runs = np.repeat(_draws(1, 1, 101), 3, axis=0)
    assert interval_of_sum([runs, runs[:2]], (-1, 1), 0.95) == (0, 0, 0)

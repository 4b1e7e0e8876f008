"""The gain at equal cost: the line through the baselines, and the distance from it."""

import math

import numpy as np
import pytest

from resnest_d2.analysis.comparing.equal_cost import gain_at_equal_cost


def _runs(*values: float, draws: int = 50) -> np.ndarray:
    """A metric of runs that does not depend on the choice of images."""
    return np.repeat(np.array(values)[:, None], 1 + draws, axis=1)


def test_two_baselines_are_joined_by_a_line_over_the_logarithm_of_the_cost():
    found = gain_at_equal_cost(
        [_runs(30, 32), _runs(39, 41)],
        _runs(38, 38.5),
        costs=[10, 1000],
        cost=100,
        confidence=0.95,
    )
    assert found.line == pytest.approx((31 + 40) / 2)
    assert found.gain.value == pytest.approx(38.25 - 35.5)
    assert found.slope == pytest.approx(9 / math.log(100))
    assert found.values == pytest.approx((31, 40)) and found.is_between
    # The variance of half of each baseline's mean, and of the other's.
    variances = [2 / 2 / 4, 2 / 2 / 4, 0.125 / 2]
    freedom = sum(variances) ** 2 / sum(v**2 for v in variances)
    from scipy.stats import t

    width = t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    assert found.gain.high - found.gain.value == pytest.approx(width)


def test_more_baselines_are_fitted_by_least_squares():
    costs, values = [10, 20, 50, 80], [30, 33.5, 36, 39]
    found = gain_at_equal_cost(
        [_runs(v) for v in values], _runs(40.0), costs=costs, cost=30, confidence=0.95
    )
    slope, level = np.polyfit(np.log(costs), values, 1)
    assert found.line == pytest.approx(level + slope * math.log(30))
    assert found.slope == pytest.approx(slope)


def test_a_model_on_the_line_gains_nothing_whatever_images_are_drawn():
    rng = np.random.default_rng(0)
    images = rng.normal(0, 2, (1, 101))  # harder or easier images, the same for all
    models = [base + images for base in (20.0, 26.0, 23.0)]
    found = gain_at_equal_cost(models[:2], models[2], costs=[1, 100], cost=10, confidence=0.95)
    assert found.gain == pytest.approx((0, 0, 0), abs=1e-8)


@pytest.mark.parametrize(("cost", "between"), [(5, False), (10, True), (2000, False)])
def test_a_line_is_extended_beyond_its_baselines(cost, between):
    found = gain_at_equal_cost(
        [_runs(30), _runs(40)], _runs(35), costs=[10, 1000], cost=cost, confidence=0.95
    )
    assert found.is_between is between


def test_baselines_of_one_cost_have_no_line():
    with pytest.raises(ValueError, match="baselines of different cost, got 10, 10"):
        gain_at_equal_cost([_runs(1), _runs(2)], _runs(3), costs=[10, 10], cost=5, confidence=0.95)

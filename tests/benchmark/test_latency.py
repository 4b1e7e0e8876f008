"""Measurements: what is called, how often, in which order. Times themselves are not asserted."""

from resnest_d2.benchmark import LatencyComparison, compare_latency, describe_environment


def test_both_are_run_equally_often_and_take_turns_in_going_first():
    calls = []
    times = compare_latency(lambda: calls.append("a"), lambda: calls.append("b"), runs=4, warmup=2)
    assert len(times.ours_ms) == len(times.reference_ms) == 4
    pairs = ["".join(calls[i : i + 2]) for i in range(0, len(calls), 2)]
    assert sorted(pairs) == 3 * ["ab"] + 3 * ["ba"]
    assert all(first != second for first, second in zip(pairs, pairs[1:], strict=False))


def test_ratio_is_the_median_of_pairs():
    times = LatencyComparison((1.0, 2.0, 4.0), (2.0, 2.0, 2.0))
    assert times.ratios == (2.0, 1.0, 0.5)
    assert times.ratio == 1.0


def test_environment_names_hardware_and_versions():
    assert {"CPU", "AMX", "threads", "torch", "detectron2"} <= set(describe_environment())

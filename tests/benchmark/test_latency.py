"""Measurements: what is called, how often, in which order. Times themselves are not asserted."""

from resnest_d2.benchmark import alternate, describe_environment


def test_all_are_run_equally_often_and_take_turns_in_going_first():
    calls = []
    times = alternate([lambda: calls.append("a"), lambda: calls.append("b")], runs=4, warmup=2)
    assert [len(own) for own in times] == [4, 4]
    pairs = ["".join(calls[i : i + 2]) for i in range(0, len(calls), 2)]
    assert sorted(pairs) == 3 * ["ab"] + 3 * ["ba"]
    assert all(first != second for first, second in zip(pairs, pairs[1:], strict=False))


def test_environment_names_hardware_and_versions():
    assert {"CPU", "AMX", "threads", "torch", "detectron2"} <= set(describe_environment())

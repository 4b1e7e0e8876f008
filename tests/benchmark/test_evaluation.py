"""The benchmark of COCO evaluation: what it draws, and that both implementations get the same."""

import numpy as np

from resnest_d2.benchmark import compare_evaluators, draw_results


def test_both_implementations_are_timed_on_the_same_numbers():
    boxes, masks = compare_evaluators(images=6, detections=40, runs=1)
    assert [boxes.task, masks.task] == ["bbox", "segm"]
    for found in (boxes, masks):
        assert found.difference == 0
        assert 0.01 < found.numbers["hotcoco"][0] < 0.9 and len(found.numbers["hotcoco"]) == 12
        assert len(found.times.ours_ms) == len(found.times.reference_ms) == 1


def test_the_drawn_set_has_crowds_sizes_and_equal_scores():
    dataset, results = draw_results(30, 100, classes=3)
    areas = np.array([a["area"] for a in dataset["annotations"]])
    assert min((areas < 32**2).sum(), (areas > 96**2).sum()) > 10
    assert {a["iscrowd"] for a in dataset["annotations"]} == {0, 1}
    assert len(results) == 30 * 100 and len({r["score"] for r in results}) <= 101
    assert (dataset, results) == draw_results(30, 100, classes=3)
    assert draw_results(30, 100, classes=3, seed=1) != (dataset, results)
    assert all(0 <= r["bbox"][0] <= r["bbox"][0] + r["bbox"][2] <= 640 for r in results)

"""What counts as the same: tolerances of features, dense outputs and lists that are full."""

import numpy as np
import pytest

from resnest_d2.export import Agreement
from resnest_d2.export.verify import compare_outputs


def _detections(score: float = 0.5, *, left: float = 20.0) -> dict[str, np.ndarray]:
    """Two objects; the second one is moved, and has this score."""
    return {
        "boxes": np.array([[0, 0, 10, 10], [left, 20, left + 20, 40]], np.float32),
        "scores": np.array([0.9, score], np.float32),
        "classes": np.array([1, 0]),
    }


def test_a_full_list_may_differ_at_its_last_place_alone():
    def problems(ours: dict, theirs: dict, max_detections: int) -> list[str]:
        agreement = Agreement()
        cut = {"score_threshold": 0.1, "max_detections": max_detections}
        compare_outputs(agreement, ours, theirs, **cut)
        return agreement.problems

    another = _detections(left=60.0)  # another object, with the same score
    assert not problems(_detections(), another, 2)
    for score in (0.5003, 0.4997):  # further from the last place than the tolerance
        (problem,) = problems(_detections(), _detections(score, left=60.0), 2)
        assert "without a partner" in problem
    (problem,) = problems(_detections(), another, 3)  # not full: nothing was cut off
    assert "without a partner" in problem


def test_masks_overlap_almost_wholly():
    for missing, agrees in ((1, True), (2, False)):  # pixels of 100
        ours, theirs = ({**_detections(), "masks": np.ones((2, 10, 10), bool)} for _ in range(2))
        theirs["masks"][1].flat[:missing] = False
        agreement = Agreement()
        compare_outputs(agreement, ours, theirs, score_threshold=0.1, max_detections=9)
        assert agreement.masks == 1 - missing / 100
        assert bool(agreement.problems) != agrees


FEATURES = {
    "p2": np.array([[[2.0, -4.0]]], np.float32),
    "p3": np.array([[[0.5]]], np.float32),
}
DENSE = {
    "boxes": np.array([[0, 0, 10, 10]], np.float32),
    "scores": np.array([[0.5, 0.25]], np.float32),
}


@pytest.mark.parametrize(
    ("ours", "name", "by", "problem"),
    [
        (FEATURES, "p2", 0.003, None),
        (FEATURES, "p2", 0.005, "features differ by 0.00125"),  # of 4, its largest value
        (FEATURES, "p3", 0.0006, "features differ by 0.0012"),
        (FEATURES, "p3", np.nan, "features differ by nan"),
        (DENSE, "boxes", 0.04, None),
        (DENSE, "boxes", 0.06, "boxes differ by 0.06"),
        (DENSE, "scores", 0.00009, None),
        (DENSE, "scores", -0.0002, "scores differ by 0.0002"),
    ],
)
def test_features_and_dense_outputs_beyond_their_tolerance_are_named(ours, name, by, problem):
    agreement = Agreement()
    theirs = {**ours, name: ours[name] + np.float32(by)}
    compare_outputs(agreement, ours, theirs, score_threshold=None, max_detections=9)
    assert [text.partition(": ")[2] for text in agreement.problems] == [problem] * bool(problem)


@pytest.mark.parametrize("ours", [FEATURES, DENSE], ids=["features", "dense"])
def test_outputs_of_another_shape_or_name_are_named(ours):
    name = min(ours)
    for theirs in ({**ours, name: ours[name][..., :-1]}, {name: ours[name]}):
        agreement = Agreement()
        compare_outputs(agreement, ours, theirs, score_threshold=None, max_detections=9)
        assert len(agreement.problems) == 1

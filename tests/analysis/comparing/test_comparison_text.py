"""Words, tables and the chart of a comparison."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from resnest_d2.analysis.comparing.comparison import Comparison, Gain, Side, TaskComparison
from resnest_d2.analysis.comparing.comparison_text import comparison_text, verdict
from resnest_d2.benchmark import RunCost
from resnest_d2.draw.gains import plot_gains
from resnest_d2.evaluation.image_matches import METRICS

NONE = Gain(*[math.nan] * 5)
DRAWS = tuple(np.full((1, 3), value) for value in (30.0, 32.0))


def _comparison(gain: Gain, *, classes=(), runs=1, changes=(), **metrics) -> Comparison:
    values = {**dict.fromkeys(METRICS, NONE), "AP": gain, **metrics}
    task = TaskComparison(values, dict(classes), DRAWS)
    return Comparison(
        Side("plain", ("a",) * runs, "ResNet-50"),
        Side("split", ("b",) * runs, "ResNeSt-50"),
        more_baselines=(),
        tasks={"bbox": task},
        network={},
        changes=dict(changes),
        images=50,
        resamples=1000,
        confidence=0.95,
        seed=0,
    )


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Gain(30, 32, 2, 0.5, 3), "split gains 2.0 AP over plain: +2.0, 95% interval +0.5 to +3.0"),
        (Gain(32, 30, -2, -3, -1), "split loses 2.0 AP against plain: -2.0"),
        (Gain(30, 32, 2, -1, 5), "no difference is shown between split and plain: +2.0 AP"),
        (Gain(30, 30, -0.01, -2, 0.04), "plain: +0.0 AP, 95% interval -2.0 to +0.0, which"),
        (NONE, "no objects, no AP"),
    ],
)
def test_a_verdict_says_what_the_interval_says(gain, words):
    assert words in verdict(_comparison(gain), "bbox")


def test_a_verdict_names_sizes_and_classes_that_differ():
    unsure, sure = Gain(30, 32, 2, -1, 5), Gain(30, 34, 4, 1, 6)
    found = _comparison(unsure, classes={"cat": sure, "dog": unsure}, APl=sure, AP50=sure)
    text = verdict(found, "bbox")
    assert "0 is excluded for sizes large +4.0; classes cat +4.0." in text and "dog" not in text
    assert "For no size or class" in verdict(_comparison(unsure), "bbox")


def test_a_verdict_on_label_maps_is_in_miou_and_has_no_sizes():
    sure = Gain(30, 32, 2, 0.5, 3)
    task = TaskComparison({"mIoU": sure, "pACC": NONE}, {"sky": sure}, DRAWS)
    found = dataclasses.replace(_comparison(NONE), tasks={"sem_seg": task})
    text = comparison_text(found)
    assert "**Label maps**: split gains 2.0 mIoU over plain: +2.0" in text
    assert text.count("Among classes 0 is excluded for sky +2.0.") == 1 and "size" not in text
    assert "| class (IoU)" in text


def test_the_text_says_what_the_intervals_do_not_know():
    gain = Gain(30, 32, 2, -1, 5)
    assert "cover only the choice of images" in comparison_text(_comparison(gain))
    several = comparison_text(_comparison(gain, runs=3))
    assert (
        "cover only the choice of images" not in several
        and "AP by run: plain 30.0; split 32.0" in several
    )
    changed = comparison_text(_comparison(gain, changes={"MODEL.WEIGHTS": ("", "/home/me/w.pth")}))
    assert "differ in more than their backbones" in changed
    assert "MODEL.WEIGHTS (none / w.pth)" in changed


def test_cost_is_told_with_the_others_part_of_it():
    def cost(name, factor, latency):
        return RunCost(
            name=name,
            params=int(40e6 * factor),
            multiply_adds=int(4e9 * factor),
            latency_ms=latency,
            ratios=tuple(b / a for a, b in zip(latency, (100.0, 120.0), strict=True)),
            peak=None,
            saved=None,
            backbone_params=int(20e6 * factor),
            size=(800, 1067),
        )

    costs = {"baseline": cost("a", 1, (100.0, 120.0)), "other": cost("b", 1.5, (200.0, 240.0))}
    rows = comparison_text(_comparison(NONE), costs).splitlines()
    (ratio,) = (row for row in rows if row.startswith("| ratio"))
    cells = [cell.strip() for cell in ratio.split("|")[1:-1]]
    assert cells == ["ratio", "1.50", "1.50", "1.50", "", "2.00", "2.00–2.00", "–"]


def test_the_chart_takes_any_class_name_and_many_of_them(tmp_path):
    gain = Gain(30, 32, 2, -1, 5)
    few = _comparison(gain, classes={"$x$ | <b>_^": gain, "none there": NONE})
    many = _comparison(gain, classes={f"class {n}": Gain(0, n, n, n, n) for n in range(90)})
    heights = []
    for found in (few, many):
        plot_gains(found, tmp_path / "gains.png", title="$", note="small $print$")
        with Image.open(tmp_path / "gains.png") as picture:
            heights.append(picture.height)
    assert heights[0] < heights[1] < 2000
    assert "\\|" in comparison_text(few)

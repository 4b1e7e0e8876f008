"""Outcomes on their image: where they should be, in their colour, whatever the classes' names."""

import json

import numpy as np
import pytest
from evaluated_runs import write_run
from matplotlib.colors import to_rgb
from PIL import Image

from resnest_d2.analysis.evaluated_run import read_evaluated_run
from resnest_d2.analysis.mistakes import Detection, ImageOutcomes, Outcome, analyse_results
from resnest_d2.draw.charts import literal, short_name
from resnest_d2.draw.instances import Mark, draw_instances, draw_marks
from resnest_d2.draw.outcomes import STYLES, draw_objects, draw_outcomes, draw_surroundings
from resnest_d2.report.gallery import mistake_panels, worst_scenes

GREY = np.full((100, 160, 3), 128, np.uint8)
NAMES = {1: "cat"}
BOX = [40, 20, 60, 50]  # x, y, width, height


def _color(outcome):
    return np.array(to_rgb(STYLES[outcome].color)) * 255


def _has(picture, color, place):
    """Whether the colour is among the pixels of this part."""
    return bool((abs(picture[place].astype(int) - color).max(axis=-1) < 12).any())


LEFT_EDGE = np.s_[90:120, 3 * 40 - 4 : 3 * 40 + 5]  # of the box, three times enlarged


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.MISSED])
def test_a_detection_has_the_colour_of_its_outcome(outcome):
    result = {"category_id": 1, "bbox": BOX, "score": 0.9}
    outcomes = ImageOutcomes(detections=[Detection(result, outcome)])
    picture = draw_outcomes(GREY, outcomes, NAMES, masks=False)
    assert picture.shape == (300, 480, 3)
    for other in Outcome:
        assert _has(picture, _color(other), LEFT_EDGE) == (other is outcome), other


def test_missed_objects_alone_are_drawn_among_the_detections():
    annotation = {"category_id": 1, "bbox": BOX}
    for outcome in (Outcome.MISSED, Outcome.CORRECT, Outcome.LOCALISATION):
        picture = draw_outcomes(
            GREY, ImageOutcomes(objects=[(annotation, outcome)]), NAMES, masks=False
        )
        missed = outcome is Outcome.MISSED
        assert _has(picture, _color(Outcome.MISSED), LEFT_EDGE) == missed
        assert (picture != 128).any() == missed


def test_no_two_outcomes_look_the_same_without_colours():
    looks = [(style.line, style.sign) for style in STYLES.values()]
    assert len(set(looks)) == len(looks) == len(Outcome)
    assert len({style.color for style in STYLES.values()}) == len(Outcome)


def test_surroundings_have_the_detection_and_its_object():
    result = {"category_id": 1, "bbox": [70, 40, 20, 20], "score": 0.9}
    annotation = {"category_id": 1, "bbox": [60, 40, 20, 20]}
    alone = draw_surroundings(GREY, Detection(result, Outcome.BACKGROUND), NAMES)
    both = draw_surroundings(GREY, Detection(result, Outcome.LOCALISATION, annotation), NAMES)
    assert max(alone.shape) == max(both.shape) == 240
    white, anywhere = np.array([255, 255, 255]), np.s_[:]
    assert _has(alone, _color(Outcome.BACKGROUND), anywhere) and not _has(alone, white, anywhere)
    assert _has(both, _color(Outcome.LOCALISATION), anywhere) and _has(both, white, anywhere)


@pytest.mark.parametrize("box", [[-5, -5, 4, 4], [158, 98, 40, 40], [0, 0, 160, 100], [9, 9, 0, 0]])
def test_surroundings_of_a_box_at_the_border(box):
    result = {"category_id": 1, "bbox": box, "score": 0.9}
    picture = draw_surroundings(GREY, Detection(result, Outcome.BACKGROUND), NAMES)
    assert max(picture.shape) == 240 and min(picture.shape[:2]) > 0


HOSTILE = [r"$\frac{$", "$a$ and $b$", "a\nb\0c", "half \ud800 pair", "x" * 5000, "<script>", ""]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_any_class_name_is_drawn(name):
    result = {"category_id": 1, "bbox": BOX, "score": 0.9}
    outcomes = ImageOutcomes(detections=[Detection(result, Outcome.CORRECT)])
    drawn = draw_outcomes(GREY, outcomes, {1: name}, masks=False)
    assert drawn.shape == (300, 480, 3)
    objects = draw_objects(GREY, [{"category_id": 1, "bbox": BOX}], {1: name}, masks=False)
    assert (objects != 128).any()


def test_a_name_with_dollars_is_drawn_letter_by_letter():
    def width(text):
        picture = draw_marks(GREY, [Mark((5, 5, 9, 9), text, "red")])
        return np.flatnonzero((picture != 128).any(axis=(0, 2))).max()

    assert width(literal("$aaaa$")) > width(literal("aaaa")) + 5
    assert short_name("y" * 50, 10) == "y" * 9 + "…"


def test_predictions_of_a_class_with_a_dollar_are_drawn():
    import torch

    from detectron2.structures import Boxes, Instances

    found = Instances(
        (100, 160),
        pred_boxes=Boxes(torch.tensor([[40.0, 20, 100, 70]])),
        scores=torch.tensor([0.9]),
        pred_classes=torch.tensor([0]),
    )
    assert (draw_instances(GREY, found, [r"$\frac{$"]) != 128).any()


@pytest.fixture
def run(tmp_path):
    """Five images: without a mistake, missing, damaged, of another size, and the worst."""
    names = ["good.png", "missing.png", "damaged.png", "smaller.png", "worst.png"]
    sizes = {"good.png": (160, 100), "smaller.png": (80, 50), "worst.png": (160, 100)}
    for name, size in sizes.items():
        Image.new("RGB", size, "grey").save(tmp_path / name)
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    objects = [(i, BOX) for i in range(1, 6)] + [(5, [0, 0, 20, 20])]
    content = {
        "images": [
            {"id": i, "file_name": name, "height": 100, "width": 160}
            for i, name in enumerate(names, start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 1, "bbox": box, "area": box[2] * box[3]}
            for n, (i, box) in enumerate(objects, start=1)
        ],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    found = [(1, BOX, 0.9), (2, [120, 60, 20, 20], 0.8), (5, [120, 60, 20, 20], 0.7)]
    results = [
        {"image_id": i, "category_id": 1, "bbox": box, "score": score} for i, box, score in found
    ]
    options = ("MODEL.MASK_ON", "False")
    return read_evaluated_run(write_run(tmp_path / "r", tmp_path / "val.json", results, *options))


def test_a_picture_that_cannot_be_shown_becomes_a_notice(run):
    analysis = analyse_results(run.truth, run.results, "bbox")
    scenes = worst_scenes([run], [analysis], ["r"], 10)
    assert [scene.name for scene in scenes][:2] == ["worst.png", "missing.png"]
    by_name = {scene.name: scene for scene in scenes}
    assert "good.png" not in by_name
    assert by_name["missing.png"].notice == "the file is missing"
    assert "damaged" in by_name["damaged.png"].notice
    assert by_name["smaller.png"].notice == "it has (50, 80) pixels, and its data says (100, 160)"
    worst = by_name["worst.png"]
    assert not worst.notice
    assert [(panel.title, panel.run) for panel in worst.panels] == [
        ("Ground truth", None),
        ("r", 0),
    ]
    assert [panel.text for panel in worst.panels] == ["2 cat", "1 background, 2 missed"]
    assert all(panel.address.startswith("data:image/jpeg;base64,") for panel in worst.panels)
    assert len(worst_scenes([run], [analysis], ["r"], 1)) == 1

    panels = mistake_panels(run, analysis, 10)
    assert [panel.text for panel in panels] == ["cat 80%: background", "cat 70%: background"]
    assert [bool(panel.address) for panel in panels] == [False, True]


def test_the_runs_are_beside_each_other_and_worst_together(run):
    nothing = analyse_results(run.truth, [], "bbox")
    analysis = analyse_results(run.truth, run.results, "bbox")
    scenes = worst_scenes([run, run], [analysis, nothing], ["a", "b"], 10)
    assert [panel.title for panel in scenes[0].panels] == ["Ground truth", "a", "b"]
    assert scenes[0].panels[2].text == "2 missed"
    assert "good.png" in [scene.name for scene in scenes]  # which the second run misses

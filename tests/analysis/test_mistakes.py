"""What became of detections and objects: a hand-made set of every kind, and TIDE's counts."""

import copy
from collections import Counter

import hotcoco
import numpy as np
import pytest
from coco_sets import draw_set
from evaluated_runs import as_truth

from resnest_d2.analysis.mistakes import ERRORS, Outcome, analyse_results
from resnest_d2.evaluation import evaluate_results, measure_accuracy
from resnest_d2.evaluation.coco_metrics import load_evaluation

CAT, DOG = 3, 8  # category ids


def _box(x, y, side=20):
    return [x, y, side, side]


def _object(image_id, category_id, box, iscrowd=0):
    area = box[2] * box[3]
    own = {"image_id": image_id, "category_id": category_id, "bbox": box, "iscrowd": iscrowd}
    return {**own, "area": area, "segmentation": [_outline(box)] if not iscrowd else _rle(box)}


def _outline(box):
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _rle(box):
    mask = np.zeros((100, 100), np.uint8, order="F")
    x, y, width, height = box
    mask[y : y + height, x : x + width] = 1
    rle = hotcoco.mask.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _result(image_id, category_id, box, score):
    own = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
    return {**own, "segmentation": _rle(box)}


def _set(objects, results):
    objects = [{**own, "id": number} for number, own in enumerate(objects, start=11)]
    images = [{"id": i, "height": 100, "width": 100, "file_name": f"{i}.png"} for i in range(1, 10)]
    categories = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}]
    return as_truth({"images": images, "categories": categories, "annotations": objects}), results


# By image: objects, detections, what becomes of the detections, what becomes of the objects.
CASES = {
    1: ([(CAT, _box(0, 0))], [(CAT, _box(1, 0), 0.9)], ["correct"], ["correct"]),
    2: (
        [(CAT, _box(0, 0))],
        [(CAT, _box(0, 0), 0.9), (CAT, _box(1, 1), 0.8)],
        ["correct", "duplicate"],
        ["correct"],
    ),
    3: ([(CAT, _box(0, 0))], [(DOG, _box(0, 1), 0.9)], ["wrong class"], ["wrong class"]),
    4: (
        [(CAT, _box(0, 0))],
        [(CAT, _box(10, 0), 0.9)],  # IoU 1/3
        ["poorly localised"],
        ["poorly localised"],
    ),
    5: (
        [(CAT, _box(0, 0))],
        [(DOG, _box(10, 0), 0.9)],
        ["wrong class and poorly localised"],
        ["missed"],
    ),
    6: ([(DOG, _box(0, 0))], [(DOG, _box(60, 60), 0.9)], ["background"], ["missed"]),
    7: ([(DOG, _box(0, 0))], [(DOG, _box(0, 0), 0.3)], [], ["missed"]),  # below the threshold
    8: (
        [(CAT, _box(0, 0, 60), 1), (CAT, _box(70, 70))],
        [(CAT, _box(5, 5), 0.9), (CAT, _box(70, 70), 0.8)],
        ["not counted", "correct"],
        ["not counted", "correct"],
    ),
    9: ([], [(CAT, _box(0, 0), 0.7)], ["background"], []),
}


@pytest.fixture
def hand_made():
    objects = [_object(i, *own) for i, (own_objects, *_) in CASES.items() for own in own_objects]
    results = [_result(i, *own) for i, (_, found, *_) in CASES.items() for own in found]
    return _set(objects, results)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_each_detection_and_object_gets_its_outcome(hand_made, task):
    analysis = analyse_results(*hand_made, task)
    for image_id, (objects, _, of_detections, of_objects) in CASES.items():
        image = analysis.images[image_id]
        assert [d.outcome.value for d in image.detections] == of_detections, image_id
        assert [outcome.value for _, outcome in image.objects] == of_objects, image_id
        for detection in image.detections:
            about_none = detection.outcome in (Outcome.BACKGROUND, Outcome.IGNORED)
            assert (detection.object is None) == about_none
            if detection.object is not None and len(objects) == 1:
                assert detection.object is image.objects[0][0]


def test_counts_by_outcome_and_by_class(hand_made):
    analysis = analyse_results(*hand_made, "bbox")
    expected = Counter(o for _, _, detections, _ in CASES.values() for o in detections)
    expected["missed"] = sum(objects.count("missed") for *_, objects in CASES.values())
    counted = {outcome.value: number for outcome, number in analysis.counts.items()}
    assert counted == {outcome.value: expected[outcome.value] for outcome in analysis.counts}
    # Objects, found, detections: the crowd and its detection do not count.
    assert analysis.by_class == {CAT: (6, 3, 6), DOG: (2, 0, 3)}


def test_confusion_has_each_object_once_and_no_crowd(hand_made):
    confusion = analyse_results(*hand_made, "bbox").confusion
    np.testing.assert_array_equal(
        confusion,
        [
            [3, 1, 2],  # cats of images 1, 2, 8; of 3; of 4, 5
            [0, 0, 2],
            [3, 2, 0],  # images 2, 4, 9; 5, 6
        ],
    )


def test_images_and_false_positives_are_sorted_by_how_bad(hand_made):
    analysis = analyse_results(*hand_made, "bbox")
    badness = {i: image.badness for i, image in analysis.images.items()}
    assert badness[1] == badness[8] == 0
    assert badness[2] == pytest.approx(0.8) and badness[6] == pytest.approx(1.9)
    scores = [d.result["score"] for d in analysis.false_positives()]
    assert scores == sorted(scores, reverse=True) and len(scores) == 6


def test_a_lower_threshold_finds_what_was_missed(hand_made):
    before = analyse_results(*hand_made, "bbox", score_threshold=0.5)
    after = analyse_results(*hand_made, "bbox", score_threshold=0.3)
    assert after.counts[Outcome.CORRECT] == before.counts[Outcome.CORRECT] + 1
    assert after.counts[Outcome.MISSED] == before.counts[Outcome.MISSED] - 1
    assert after.lost_ap == before.lost_ap


def test_a_higher_iou_makes_poor_localisation_of_a_correct_detection(hand_made):
    analysis = analyse_results(*hand_made, "bbox", iou=0.95)  # of image 1: 0.90
    assert analysis.images[1].detections[0].outcome is Outcome.LOCALISATION


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_counts_equal_those_of_tide_on_random_sets(task):
    """Without crowds: TIDE takes a detection that partly overlaps one for a poor localisation."""
    seen = Counter()
    for seed in range(12):
        dataset, results = draw_set(seed)
        dataset["annotations"] = [a for a in dataset["annotations"] if not a["iscrowd"]]
        truth = as_truth(dataset)
        analysis = analyse_results(truth, results, task, score_threshold=0)
        loaded = load_evaluation(truth, results, task)
        matching = hotcoco.COCOeval(loaded.cocoGt, loaded.cocoDt, task)
        matching.evaluate()
        counts = matching.tide_errors()["counts"]
        own = {ERRORS[o]: number for o, number in analysis.counts.items() if o in ERRORS}
        assert own == counts, seed
        seen.update(own)
        objects = sum(objects for objects, _, _ in analysis.by_class.values())
        assert analysis.confusion[:-1].sum() == objects
    assert min(seen[name] for name in ERRORS.values()) > 10


def test_lost_ap_is_what_mending_gains():
    """Where all that is wrong is one kind, to mend it by hand gives the gain that is said."""
    objects = [_object(i, CAT, _box(0, 0)) for i in range(1, 7)]
    objects += [_object(i, DOG, _box(40, 40)) for i in range(1, 7)]
    good = [_result(own["image_id"], own["category_id"], own["bbox"], 0.9) for own in objects]
    for place in (1, 2, 5):  # cats taken for dogs, with the highest scores
        good[place]["score"] = 0.95
    wrong = copy.deepcopy(good)
    for place in (1, 2, 5):
        wrong[place]["category_id"] = DOG
    truth, _ = _set(objects, [])

    def ap50(results):
        return 100 * evaluate_results(truth, results, "bbox").stats[1]

    gain = ap50(good) - ap50(wrong)
    assert gain > 20
    lost = analyse_results(truth, wrong, "bbox").lost_ap
    assert lost[Outcome.WRONG_CLASS] == pytest.approx(gain, abs=1e-6)
    assert lost[Outcome.LOCALISATION] == lost[Outcome.MISSED] == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"score_threshold": 1.5}, "from 0 to 1, got 1.5"),
        ({"score_threshold": float("nan")}, "from 0 to 1, got nan"),
        ({"iou": 0.52}, "0.5, 0.55, … 0.95, got 0.52"),
        ({"iou": 1.0}, "got 1.0"),
    ],
)
def test_an_argument_out_of_range_is_refused(hand_made, options, named):
    with pytest.raises(ValueError, match=named):
        analyse_results(*hand_made, "bbox", **options)
    with pytest.raises(ValueError, match="keypoints"):
        analyse_results(*hand_made, "keypoints")


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_accuracy_equals_pycocotools(task):
    for seed in range(4):
        dataset, results = draw_set(seed)
        accuracy = measure_accuracy(as_truth(dataset), results, task)
        found = evaluate_results(as_truth(dataset), results, task, implementation="pycocotools")
        np.testing.assert_allclose(list(accuracy.metrics.values()), _percent(found.stats[:6]))
        precision = found.eval["precision"]  # (T, R, K, A, M)
        np.testing.assert_allclose(100 * accuracy.precision, _percent(precision[0, ..., 0, -1].T))
        for number, values in enumerate(accuracy.classes):
            expected = [
                precision[:, :, number, 0, -1].mean(),
                precision[0, :, number, 0, -1].mean(),
                precision[5, :, number, 0, -1].mean(),
                *(precision[:, :, number, size, -1].mean() for size in (1, 2, 3)),
            ]
            np.testing.assert_allclose(list(values.values()), _percent(expected))


def _percent(values):
    """COCO's -1 as NaN."""
    values = np.asarray(values)
    return np.where(values < 0, np.nan, 100 * values)

"""The fast implementation's numbers are pycocotools', and so are those of COCO's own example."""

import contextlib
import copy
import io
import json
import re
from collections import Counter

import numpy as np
import pytest
from coco_sets import draw_set
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.evaluation.coco_evaluation import COCOevalMaxDets

from resnest_d2.evaluation import IMPLEMENTATIONS, GroundTruth, evaluate_results

ARRAYS = ("precision", "recall", "scores")


def _coco(dataset: dict) -> COCO:
    coco = COCO()
    coco.dataset = copy.deepcopy(dataset)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _plain_pycocotools(dataset, results, task, *, max_dets=None, oks_sigmas=(), image_ids=None):
    """pycocotools used by hand, as its documentation and Detectron2 do."""
    truth = _coco(dataset)
    results = copy.deepcopy(results)
    if task == "segm":
        for result in results:
            del result["bbox"]
    evaluation = (COCOevalMaxDets if max_dets else COCOeval)(truth, truth.loadRes(results), task)
    if max_dets and task != "keypoints":
        evaluation.params.maxDets = list(max_dets)
    if oks_sigmas:
        evaluation.params.kpt_oks_sigmas = np.array(oks_sigmas)
    if image_ids is not None:
        evaluation.params.imgIds = image_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def _assert_same(dataset, results, task, implementation="hotcoco", **options):
    reference = _plain_pycocotools(dataset, results, task, **options)
    before = copy.deepcopy(results)
    found = evaluate_results(
        GroundTruth(_coco(dataset)),
        results,
        task,
        implementation=implementation,
        **{key: value for key, value in options.items() if value is not None},
    )
    assert results == before
    np.testing.assert_array_equal(found.stats, reference.stats)
    for key in ARRAYS:
        np.testing.assert_array_equal(found.eval[key], reference.eval[key])
    return reference.stats


@pytest.mark.parametrize("seed", range(12))
def test_every_array_is_bit_equal_to_pycocotools(seed):
    keypoints = (5, 17)[seed % 2]
    dataset, results = draw_set(seed, keypoints=keypoints)
    sigmas = [0.05] * 5 if keypoints == 5 else []
    max_dets = (None, (1, 10, 30), (1, 10, 300), (1, 10, 10))[seed % 4]
    for task in ("bbox", "segm", "keypoints"):
        oks = {"oks_sigmas": sigmas} if task == "keypoints" else {}
        _assert_same(dataset, results, task, max_dets=max_dets, **oks)
        _assert_same(dataset, results, task, "pycocotools", max_dets=max_dets, **oks)


def test_the_random_sets_meet_the_rules():
    sets = [draw_set(seed, keypoints=5) for seed in range(12)]
    objects = [a for dataset, _ in sets for a in dataset["annotations"]]
    assert {a["iscrowd"] for a in objects} == {0, 1}
    assert {0, 1024, 9216} <= {a["area"] for a in objects}
    assert any(a["num_keypoints"] == 0 for a in objects)
    assert any(isinstance(a["segmentation"], list) for a in objects)
    counts = [a["segmentation"]["counts"] for a in objects if isinstance(a["segmentation"], dict)]
    assert {type(c) for c in counts} == {str, list}
    assert all(0 < _plain_pycocotools(*drawn, "segm").stats[0] < 0.9 for drawn in sets[:3])
    without_detections, over_the_limit = False, False
    for dataset, results in sets:
        pairs = Counter((r["image_id"], r["category_id"]) for r in results)
        without_detections |= len({i for i, _ in pairs}) < len(dataset["images"])
        over_the_limit |= max(pairs.values()) > 100
    assert without_detections and over_the_limit


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_ids_may_be_negative_or_text_or_beyond_float64(task):
    for rename in (lambda i: -i, lambda i: f"image {i:03}", lambda i: 2**60 + i):
        dataset, results = draw_set(1)
        for image in dataset["images"]:
            image["id"] = rename(image["id"])
        for record in (*dataset["annotations"], *results):
            record["image_id"] = rename(record["image_id"])
        for category in dataset["categories"]:
            category["id"] -= 5
        for record in (*dataset["annotations"], *results):
            record["category_id"] -= 5
        _assert_same(dataset, results, task)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_chosen_images_alone_are_evaluated(implementation):
    dataset, results = draw_set(3)
    ids = sorted(image["id"] for image in dataset["images"])
    chosen = [ids[4], ids[1], ids[1]]
    for task in ("bbox", "segm"):
        some = _assert_same(dataset, results, task, implementation, image_ids=chosen)
        assert not np.array_equal(some, _plain_pycocotools(dataset, results, task).stats)
    truth = GroundTruth(_coco(dataset), name="val.json")
    for wrong in ([], [ids[0], 999]):
        with pytest.raises(ValueError, match="img_ids must be .* of val.json"):
            evaluate_results(truth, results, "bbox", implementation=implementation, image_ids=wrong)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_result_is_0_and_no_object_is_no_number(implementation):
    dataset, results = draw_set(1, keypoints=17)
    assert any(not a["iscrowd"] for a in dataset["annotations"])
    empty = {**dataset, "annotations": []}
    for task in ("bbox", "segm", "keypoints"):
        found = evaluate_results(
            GroundTruth(_coco(dataset)), [], task, implementation=implementation
        )
        assert found.stats[0] == 0
        found = evaluate_results(
            GroundTruth(_coco(empty)), results, task, implementation=implementation
        )
        assert set(found.stats) == {-1}


# ---- COCO's own example ----


def _published_numbers(file) -> dict[str, list[float]]:
    numbers = {}
    for line in file.read_text().splitlines():
        if line.startswith("type="):
            task = numbers.setdefault(line.removeprefix("type="), [])
        elif match := re.search(r"\] = (-?[\d.]+)", line):
            task.append(float(match[1]))
    return numbers


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_24_numbers_of_coco_s_example(test_data, implementation, capsys):
    folder = test_data / "cocoeval_ref"
    expected = _published_numbers(folder / "val2014_fake_eval_res.txt")
    truth = GroundTruth(COCO(folder / "instances_val2014_100.json"))
    for task in ("bbox", "segm"):
        results = json.loads((folder / f"instances_val2014_fake{task}100_results.json").read_text())
        capsys.readouterr()
        found = evaluate_results(truth, results, task, implementation=implementation)
        printed = re.findall(r"\] = (-?[\d.]+)", capsys.readouterr().out)
        assert [float(number) for number in printed] == expected[task]
        assert found.stats.round(3).tolist() == expected[task] and len(expected[task]) == 12


# ---- Ground truth that lacks something ----


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_fields_that_training_does_not_need_are_filled_in(implementation):
    dataset, results = draw_set(5, keypoints=17)
    objects = dataset["annotations"]
    for annotation in objects:
        mask = _coco(dataset).annToMask(annotation)
        annotation["area"] = float(mask.sum())
        annotation["iscrowd"] = 0
        if not annotation["num_keypoints"]:
            annotation["keypoints"] = [0] * 51
    bare = copy.deepcopy(dataset)
    for annotation in bare["annotations"]:
        del annotation["area"], annotation["iscrowd"]
        if not annotation.pop("num_keypoints"):
            del annotation["keypoints"]
    assert any("keypoints" not in a for a in bare["annotations"])
    for task in ("bbox", "segm", "keypoints"):
        whole = _plain_pycocotools(dataset, results, task)
        found = evaluate_results(
            GroundTruth(_coco(bare)), results, task, implementation=implementation
        )
        np.testing.assert_array_equal(found.stats, whole.stats)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("first", [0, 7])
def test_annotation_ids_do_not_change_the_numbers(implementation, first):
    dataset, results = draw_set(2)
    expected = _plain_pycocotools(dataset, results, "bbox").stats
    for number, annotation in enumerate(dataset["annotations"]):
        annotation["id"] = number if first == 0 else first  # from 0 on; or all the same
    found = evaluate_results(
        GroundTruth(_coco(dataset)), results, "bbox", implementation=implementation
    )
    np.testing.assert_array_equal(found.stats, expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("segm", lambda a: a.pop("segmentation"), "segmentation of annotation 5 .* got None"),
        ("segm", lambda a: a.update(segmentation=[[1, 2, 3, 4]]), "polygons of at least 3 points"),
        ("segm", lambda a: a.update(segmentation={"size": [4, 4]}), "must be RLE"),
        ("bbox", lambda a: a.pop("bbox"), "bbox of annotation 5 must be"),
        ("keypoints", lambda a: a.update(keypoints=[1, 1, 2]), r"\[1, 17\] keypoints"),
    ],
)
def test_an_object_that_cannot_be_compared_is_named(implementation, task, change, message):
    dataset, results = draw_set(1, keypoints=17)
    change(dataset["annotations"][0])
    with pytest.raises(ValueError, match=f"val.json.*{message}"):
        evaluate_results(
            GroundTruth(_coco(dataset), name="val.json"),
            results,
            task,
            implementation=implementation,
        )
    if task == "segm":  # which do not need masks
        _assert_same(dataset, results, "bbox", implementation)


# ---- Results that cannot be ----


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 4}, "a result is for image 4, which val.json does not have"),
        ({"category_id": 90}, r"category 90, and val.json has the categories \[2"),
        ({"score": float("nan")}, "not finite: .*'score': nan"),
        ({"bbox": [0, 0, float("inf"), 1]}, "not finite: .*inf"),
    ],
)
def test_a_result_that_cannot_be_compared_is_named(implementation, change, message):
    dataset, results = draw_set(1)
    results[3].update(change)
    truth = GroundTruth(_coco(dataset), name="val.json")
    with pytest.raises(ValueError, match=message):
        evaluate_results(truth, results, "bbox", implementation=implementation)


def test_wrong_choices_are_refused():
    dataset, results = draw_set(1)
    truth = GroundTruth(_coco(dataset))
    with pytest.raises(ValueError, match="implementation must be one of .*'fast'"):
        evaluate_results(truth, results, "bbox", implementation="fast")
    with pytest.raises(ValueError, match="task must be one of .*'boxes'"):
        evaluate_results(truth, results, "boxes")
    for result in results:
        del result["segmentation"]
    with pytest.raises(ValueError, match="has no segmentation"):
        evaluate_results(truth, results, "segm")

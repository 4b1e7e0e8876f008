"""COCO's AP and AR of a list of results, by one of two implementations.

``hotcoco`` (Rust) is the default, ``pycocotools`` the reference that papers use. hotcoco is needed
for panoptic quality anyway and is faster than faster-coco-eval (C++). The tests show that its
precision, recall and score arrays are bit-equal to pycocotools' on random sets that cover all of
COCO's rules: crowds, bounds of areas, equal scores, more detections than count.

Only matching and accumulation differ. Both implementations' arrays are summarised by the same code,
Detectron2's ``COCOevalMaxDets``, which at 100 detections per image is COCO's own summary: 12
numbers for boxes and masks, 10 for keypoints.

As in Detectron2, a mask's size is its own area, even if the result has a box; keypoints have the
size of the box. Refused here, unlike in pycocotools: results of unknown categories, and scores or
coordinates that are not finite.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import hotcoco
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from detectron2.evaluation.coco_evaluation import COCOevalMaxDets

from ..errors import check_choice
from .ground_truth import GEOMETRY, GroundTruth

IMPLEMENTATIONS = ("hotcoco", "pycocotools")


def evaluate_results(
    truth: GroundTruth,
    results: Sequence[dict[str, Any]],
    task: str,
    *,
    implementation: str = "hotcoco",
    max_dets: Sequence[int] = (1, 10, 100),
    oks_sigmas: Sequence[float] = (),
    image_ids: Iterable | None = None,
) -> COCOeval:
    """Compare results with the ground truth and print COCO's 12 lines (keypoints: 10).

    Args:
        results: in COCO's results format: ``image_id``, ``category_id``, ``score`` and the task's
            ``bbox``, ``segmentation`` (RLE) or ``keypoints``. They are not changed.
        task: ``"bbox"``, ``"segm"`` or ``"keypoints"``.
        max_dets: how many detections of an image and category count: for AR1, for AR10, and for
            all other numbers. For keypoints it is always 20.
        oks_sigmas: of the keypoints; empty for COCO's 17 of a person.
        image_ids: evaluate only these images.

    Returns:
        pycocotools' object: ``stats`` has the numbers (0-1, -1 where there is no such object),
        ``eval`` the arrays ``precision``, ``recall`` and ``scores``.

    Raises:
        ValueError: an argument, a result or an object of the ground truth is invalid.
    """
    evaluation = load_evaluation(
        truth, results, task, implementation=implementation, oks_sigmas=oks_sigmas
    )
    if task != "keypoints":
        evaluation.params.maxDets = sorted(max_dets)
    elif oks_sigmas:
        evaluation.params.kpt_oks_sigmas = np.array(oks_sigmas)
    if image_ids is not None:
        chosen = list(image_ids)
        unknown = [i for i in chosen if i not in truth.images]
        if unknown or not chosen:
            raise ValueError(f"img_ids must be image ids of {truth.name}, got {unknown[:5]}")
        own = implementation == "hotcoco"
        evaluation.params.imgIds = [truth.images[i] for i in chosen] if own else chosen
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def load_evaluation(
    truth: GroundTruth,
    results: Sequence[dict[str, Any]],
    task: str,
    *,
    implementation: str = "hotcoco",
    oks_sigmas: Sequence[float] = (),
) -> COCOeval:
    """The evaluation of :func:`evaluate_results` before matching; same errors.

    With hotcoco, ``cocoGt`` and ``cocoDt`` are hotcoco's data sets, with positions as ids.
    """
    check_choice("implementation", implementation, IMPLEMENTATIONS)
    check_choice("task", task, GEOMETRY)
    if task == "keypoints":
        _require_keypoints(truth, results, len(oks_sigmas) or len(Params(task).kpt_oks_sigmas))

    try:
        if implementation == "hotcoco":
            found = _load_fast(truth, results, task)
            evaluation = _HotcocoEval(truth.as_hotcoco(task), found, task)
        else:
            truth.complete(task)
            same = [{i: i for i in ids} for ids in (truth.images, truth.categories)]
            if rows := _rows(results, task, *same):
                found = truth.coco.loadRes(rows)
            else:  # which loadRes cannot read
                found = COCO()
                found.dataset = {**truth.coco.dataset, "annotations": []}
                found.createIndex()
            evaluation = COCOevalMaxDets(truth.coco, found, task)
    except KeyError:
        for result in results:
            _require_known(truth, result, GEOMETRY[task])
        raise
    return evaluation


class _HotcocoEval(COCOevalMaxDets):
    """pycocotools' evaluation of hotcoco's data sets, with hotcoco's arrays."""

    def evaluate(self):
        self._evaluation = hotcoco.COCOeval(self.cocoGt, self.cocoDt, self.params.iouType)
        chosen = self._evaluation.params
        chosen.img_ids = sorted(set(self.params.imgIds))
        chosen.max_dets = list(self.params.maxDets)
        if self.params.iouType == "keypoints":
            chosen.kpt_oks_sigmas = self.params.kpt_oks_sigmas.tolist()
        self._evaluation.evaluate()

    def accumulate(self):
        self._evaluation.accumulate()
        self.eval = self._evaluation.eval


def _load_fast(truth: GroundTruth, results: Sequence[dict[str, Any]], task: str) -> hotcoco.COCO:
    """Results for hotcoco, with positions as ids.

    As columns, where hotcoco takes them: half a million new dicts would take longer than the
    evaluation.
    """
    objects = truth.as_hotcoco(task)
    if task == "keypoints" or not results:
        return objects.load_res(_rows(results, task, truth.images, truth.categories))
    columns = np.zeros((len(results), 7))  # image, x, y, width, height, score, category
    columns[:, 0] = [truth.images[result["image_id"]] for result in results]
    columns[:, 5] = [result["score"] for result in results]
    columns[:, 6] = [truth.categories[result["category_id"]] for result in results]
    if task == "bbox":
        columns[:, 1:5] = [result["bbox"] for result in results]
    _require_finite(results, columns)
    if task == "bbox":
        return objects.load_res(columns)
    masks = [result["segmentation"] for result in results]
    found = objects.load_res(columns, segmentation=masks)
    found.update_anns(ids=np.arange(1, len(masks) + 1), area=hotcoco.mask.area(masks))
    return found


def _rows(
    results: Sequence[dict[str, Any]],
    task: str,
    images: dict[Any, Any],
    categories: dict[Any, Any],
) -> list[dict[str, Any]]:
    """New records for one task, with the implementation's ids of images and categories."""
    key = GEOMETRY[task]
    rows = [
        {
            "image_id": images[result["image_id"]],
            "category_id": categories[result["category_id"]],
            "score": result["score"],
            key: result[key],
        }
        for result in results
    ]
    checked = ("score",) if task == "segm" else ("score", key)
    for name in checked:
        _require_finite(results, np.array([row[name] for row in rows], dtype=np.float64))
    if task == "keypoints":
        for row, result in zip(rows, results, strict=True):
            size = next((k for k in ("bbox", "segmentation") if k in result), key)
            row[size] = result[size]
    return rows


def _require_known(truth: GroundTruth, result: dict[str, Any], key: str) -> None:
    image_id = result.get("image_id")
    if image_id not in truth.images:
        raise ValueError(f"a result is for image {image_id!r}, which {truth.name} does not have")
    category_id = result.get("category_id")
    if category_id not in truth.categories:
        raise ValueError(
            f"a result for image {image_id!r} has category {category_id!r}, and {truth.name} has "
            f"the categories {list(truth.categories)[:20]}"
        )
    for needed in ("score", key):
        if needed not in result:
            raise ValueError(f"a result for image {image_id!r} has no {needed}: {list(result)}")


def _require_finite(results: Sequence[dict[str, Any]], numbers: np.ndarray) -> None:
    """Raise a ValueError for the first result with a number that is not finite."""
    finite = np.isfinite(numbers)
    if not finite.all():
        result = results[int(np.argmin(finite.reshape(len(results), -1).all(axis=1)))]
        shown = {k: v for k, v in result.items() if k != "segmentation"}
        raise ValueError(f"a result has numbers that are not finite: {shown}")


def _require_keypoints(truth: GroundTruth, results: Sequence[dict], expected: int) -> None:
    found = {len(result.get("keypoints", ())) / 3 for result in results}
    objects = [a.get("keypoints") for a in truth.coco.dataset["annotations"]]
    there = {len(keypoints) // 3 for keypoints in objects if keypoints}
    if (found | there) - {expected}:
        raise ValueError(
            f"{truth.name} has objects with {sorted(there)} keypoints, the results have "
            f"{sorted(found)}, and TEST.KEYPOINT_OKS_SIGMAS has {expected} (COCO's 17 where it is "
            "empty): they must agree"
        )

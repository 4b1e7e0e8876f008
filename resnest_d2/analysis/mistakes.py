"""What became of every detection and every object: found, or what kind of mistake.

The kinds are TIDE's (D. Bolya, S. Foley, J. Hays, J. Hoffman, "TIDE: A General Toolbox for
Identifying Object Detection Errors", ECCV 2020), in its order: a detection that COCO's matching
leaves over is

- poorly localised: it overlaps an object of its class, but less than the IoU that counts;
- of the wrong class: it covers an object of another class;
- a duplicate: it covers an object of its class, which a higher score has found already;
- background: it overlaps nothing by more than 0.1;
- both, of the wrong class and poorly localised: the rest.

An object that was not found and to which no detection of the first two kinds belongs is missed.
Matching, confusion matrix and what each kind costs in AP are hotcoco's. It counts the kinds too,
but does not say which detection is of which: this is added here, and the tests compare the counts.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

import hotcoco
import numpy as np
from pycocotools import mask as mask_util

from ..evaluation.coco_metrics import load_evaluation
from ..evaluation.ground_truth import GEOMETRY, GroundTruth

__all__ = ["ERRORS", "Analysis", "Detection", "ImageOutcomes", "Outcome", "analyse_results"]

_BACKGROUND_IOU = 0.1  # TIDE's


class Outcome(Enum):
    """Of a detection, or of an object: an object's error is that of the detection it belongs to."""

    CORRECT = "correct"
    WRONG_CLASS = "wrong class"
    LOCALISATION = "poorly localised"
    BOTH = "wrong class and poorly localised"
    DUPLICATE = "duplicate"
    BACKGROUND = "background"
    MISSED = "missed"
    IGNORED = "not counted"
    """It is on an object marked as a crowd, or one of more than 100 of its class and image."""


ERRORS = {
    Outcome.WRONG_CLASS: "Cls",
    Outcome.LOCALISATION: "Loc",
    Outcome.BOTH: "Both",
    Outcome.DUPLICATE: "Dupe",
    Outcome.BACKGROUND: "Bkg",
    Outcome.MISSED: "Miss",
}
"""The mistakes, and what TIDE calls them."""


@dataclass(frozen=True)
class Detection:
    """A result and what became of it.

    Attributes:
        result: in COCO's format.
        object: annotation that it has found, or that it is a mistake about; None for background,
            and where it is not counted.
    """

    result: dict[str, Any]
    outcome: Outcome
    object: dict[str, Any] | None = None


@dataclass
class ImageOutcomes:
    """Of one image.

    Attributes:
        detections: the highest score first.
        objects: each annotation with ``CORRECT`` where it was found, ``LOCALISATION``,
            ``WRONG_CLASS``, ``MISSED``, or ``IGNORED`` (a crowd).
    """

    detections: list[Detection] = field(default_factory=list)
    objects: list[tuple[dict[str, Any], Outcome]] = field(default_factory=list)

    @property
    def badness(self) -> float:
        """Scores of the false positives, plus one for each object that was not found."""
        wrong = sum(d.result["score"] for d in self.detections if d.outcome in ERRORS)
        return wrong + sum(outcome in ERRORS for _, outcome in self.objects)


@dataclass(frozen=True)
class Analysis:
    """What :func:`analyse_results` found.

    Attributes:
        task: ``"bbox"`` or ``"segm"``.
        images: by image id, each image of the data set.
        confusion: (K + 1, K + 1), objects by their class (rows) and that of their detection
            (columns), classes in the order of their ids. The last column counts objects without a
            detection, the last row detections without an object of their own. An object belongs to
            the detection with the highest score that covers it, of whichever class.
        lost_ap: by error, how many AP at this IoU were gained if it were mended alone, 0-100, from
            all results, not only those above the threshold.
    """

    task: str
    score_threshold: float
    iou: float
    category_ids: tuple
    images: dict[Any, ImageOutcomes]
    confusion: np.ndarray
    lost_ap: dict[Outcome, float]

    @cached_property
    def counts(self) -> dict[Outcome, int]:
        """Detections that are correct, and each kind of mistake."""
        found = Counter(d.outcome for image in self.images.values() for d in image.detections)
        found[Outcome.MISSED] = sum(
            outcome is Outcome.MISSED
            for image in self.images.values()
            for _, outcome in image.objects
        )
        return {outcome: found[outcome] for outcome in (Outcome.CORRECT, *ERRORS)}

    @cached_property
    def by_class(self) -> dict[Any, tuple[int, int, int]]:
        """By category id: objects, of them found, detections that count."""
        objects, found, detections = Counter(), Counter(), Counter()
        for image in self.images.values():
            for annotation, outcome in image.objects:
                objects[annotation["category_id"]] += outcome is not Outcome.IGNORED
                found[annotation["category_id"]] += outcome is Outcome.CORRECT
            for detection in image.detections:
                counted = detection.outcome is not Outcome.IGNORED
                detections[detection.result["category_id"]] += counted
        return {i: (objects[i], found[i], detections[i]) for i in self.category_ids}

    def false_positives(self) -> list[Detection]:
        """The highest score first."""
        wrong = (d for image in self.images.values() for d in image.detections)
        return sorted((d for d in wrong if d.outcome in ERRORS), key=lambda d: -d.result["score"])


def analyse_results(
    truth: GroundTruth,
    results: Sequence[dict[str, Any]],
    task: str,
    *,
    score_threshold: float = 0.5,
    iou: float = 0.5,
) -> Analysis:
    """Compare results with the objects, one by one.

    Args:
        results: in COCO's format.
        task: ``"bbox"`` or ``"segm"``.
        score_threshold: detections below it are left out, 0-1.
        iou: what a detection must overlap its object by, one of 0.5, 0.55, … 0.95.

    Raises:
        ValueError: an argument is out of range, or see :func:`.evaluate_results`.
    """
    if task not in ("bbox", "segm"):
        raise ValueError(f"task must be bbox or segm, got {task!r}")
    if not 0 <= score_threshold <= 1:
        raise ValueError(f"the score threshold must be from 0 to 1, got {score_threshold}")
    if not np.isclose(20 * iou, round(20 * iou)) or not 0.5 <= iou <= 0.95:
        raise ValueError(f"iou must be one of 0.5, 0.55, … 0.95, got {iou}")
    shown = [result for result in results if result["score"] >= score_threshold]
    matching = _match(truth, shown, task)
    status = matching.image_diagnostics(iou_thr=iou)
    matched = _matched_objects(truth, status)
    images = _outcomes(truth, shown, task, iou, status["dt_status"], matched)
    return Analysis(
        task=task,
        score_threshold=score_threshold,
        iou=iou,
        category_ids=tuple(truth.categories),
        images=images,
        confusion=_confusion(truth, images, task, iou),
        lost_ap=_lost_ap(truth, results, task, iou),
    )


def _match(truth: GroundTruth, results: Sequence[dict], task: str) -> hotcoco.COCOeval:
    loaded = load_evaluation(truth, results, task)
    matching = hotcoco.COCOeval(loaded.cocoGt, loaded.cocoDt, task)
    matching.evaluate()
    return matching


def _matched_objects(truth: GroundTruth, status: dict[str, Any]) -> dict[int, dict]:
    """Annotations by the position of the result that has found them.

    hotcoco numbers results and annotations from 1, in their order.
    """
    annotations = truth.coco.dataset["annotations"]
    return {result - 1: annotations[own - 1] for result, own in status["dt_match"].items()}


def _outcomes(
    truth: GroundTruth,
    results: Sequence[dict],
    task: str,
    iou: float,
    status: dict[int, str],
    matched: dict[int, dict],
) -> dict[Any, ImageOutcomes]:
    images = {image_id: ImageOutcomes() for image_id in truth.images}
    objects, positions = defaultdict(list), defaultdict(list)
    for annotation in truth.coco.dataset["annotations"]:
        if annotation["image_id"] in images and annotation["category_id"] in truth.categories:
            objects[annotation["image_id"]].append(annotation)
    for position, result in enumerate(results):
        positions[result["image_id"]].append(position)
    for image_id, image in images.items():
        own = sorted(positions[image_id], key=lambda position: -results[position]["score"])
        found = {id(matched[p]) for p in own if status.get(p + 1) == "tp"}
        real = [annotation for annotation in objects[image_id] if not annotation["iscrowd"]]
        wrong = [p for p in own if status.get(p + 1) == "fp"]
        overlaps = _overlaps(truth, [results[p] for p in wrong], real, task)
        mistakes = {
            p: _mistake(results[p], row, real, found, iou)
            for p, row in zip(wrong, overlaps, strict=True)
        }
        for p in own:
            if status.get(p + 1) == "tp":
                image.detections.append(Detection(results[p], Outcome.CORRECT, matched[p]))
            else:
                outcome, annotation = mistakes.get(p, (Outcome.IGNORED, None))
                image.detections.append(Detection(results[p], outcome, annotation))
        blamed = {
            id(annotation): outcome
            for outcome, annotation in reversed(mistakes.values())
            if outcome in (Outcome.WRONG_CLASS, Outcome.LOCALISATION)
        }
        for annotation in objects[image_id]:
            if annotation["iscrowd"]:
                outcome = Outcome.IGNORED
            elif id(annotation) in found:
                outcome = Outcome.CORRECT
            else:
                outcome = blamed.get(id(annotation), Outcome.MISSED)
            image.objects.append((annotation, outcome))
    return images


def _mistake(
    result: dict, overlaps: np.ndarray, objects: Sequence[dict], found: set[int], iou: float
) -> tuple[Outcome, dict | None]:
    """The kind of a detection that found nothing, and the object it is about.

    Args:
        overlaps: its IoU with each object.
        found: ``id()`` of the objects that were found.
    """
    if not objects:
        return Outcome.BACKGROUND, None
    same = np.array([o["category_id"] == result["category_id"] for o in objects])
    of_class, of_others = np.where(same, overlaps, 0), np.where(same, 0, overlaps)
    nearest = int(of_class.argmax())
    if _BACKGROUND_IOU <= of_class[nearest] <= iou:  # TIDE: the bound is inside
        return Outcome.LOCALISATION, objects[nearest]
    if of_others.max() >= iou:
        return Outcome.WRONG_CLASS, objects[int(of_others.argmax())]
    if of_class[nearest] >= iou:
        return Outcome.DUPLICATE, objects[nearest]
    if overlaps.max() <= _BACKGROUND_IOU:
        return Outcome.BACKGROUND, None
    return Outcome.BOTH, objects[int(overlaps.argmax())]


def _overlaps(
    truth: GroundTruth, results: Sequence[dict], objects: Sequence[dict], task: str
) -> np.ndarray:
    """IoU of each result with each object (R, O)."""
    if not results or not objects:
        return np.zeros((len(results), len(objects)))
    geometry = [result[GEOMETRY[task]] for result in results]
    if task == "segm":
        theirs = [truth.coco.annToRLE(annotation) for annotation in objects]
    else:
        theirs = [annotation["bbox"] for annotation in objects]
    return mask_util.iou(geometry, theirs, [0] * len(objects))


def _confusion(
    truth: GroundTruth, images: dict[Any, ImageOutcomes], task: str, iou: float
) -> np.ndarray:
    """hotcoco takes a crowd for an object, and a detection of it for background: without both."""
    results = [
        d.result
        for image in images.values()
        for d in image.detections
        if d.outcome is not Outcome.IGNORED
    ]
    loaded = load_evaluation(truth, results, task)
    content = loaded.cocoGt.dataset
    real = [annotation for annotation in content["annotations"] if not annotation["iscrowd"]]
    objects = hotcoco.COCO({**content, "annotations": real})
    matching = hotcoco.COCOeval(objects, loaded.cocoDt, task)
    found = matching.confusion_matrix(iou_thr=iou, max_det=max(1, len(results)))
    return found["matrix"].astype(np.int64)


def _lost_ap(
    truth: GroundTruth, results: Sequence[dict], task: str, iou: float
) -> dict[Outcome, float]:
    found = _match(truth, results, task).tide_errors(pos_thr=iou, bg_thr=_BACKGROUND_IOU)
    return {outcome: 100 * found["delta_ap"][name] for outcome, name in ERRORS.items()}

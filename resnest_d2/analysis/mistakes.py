"""The outcome of every detection and every object: correct, or what kind of mistake.

The kinds are those of TIDE (D. Bolya, S. Foley, J. Hays, J. Hoffman, "TIDE: A General Toolbox for
Identifying Object Detection Errors", ECCV 2020), in its order. A detection that COCO does not match
is

- poorly localised: it overlaps an object of its class, but by less than the IoU that counts;
- of the wrong class: it covers an object of another class;
- a duplicate: it covers an object of its class that a higher score has matched;
- background: it overlaps nothing by more than 0.1;
- both of the wrong class and poorly localised: the rest.

An object is missed where it is not matched and no detection of the first two kinds belongs to it.
hotcoco computes the matching, the confusion matrix and the AP that each kind costs. It counts the
kinds too, but does not tell the kind of each detection. The tests compare the counts.
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

from ..errors import check_choice
from ..evaluation.coco_metrics import load_evaluation
from ..evaluation.ground_truth import GEOMETRY, GroundTruth

_BACKGROUND_IOU = 0.1  # TIDE's


class Outcome(Enum):
    """Of a detection, or of an object: an object has the error of the detection it belongs to."""

    CORRECT = "correct"
    WRONG_CLASS = "wrong class"
    LOCALISATION = "poorly localised"
    BOTH = "wrong class and poorly localised"
    DUPLICATE = "duplicate"
    BACKGROUND = "background"
    MISSED = "missed"
    IGNORED = "not counted"
    """It is on a crowd, or not among the first 100 of its class and image."""


ERRORS = {
    Outcome.WRONG_CLASS: "Cls",
    Outcome.LOCALISATION: "Loc",
    Outcome.BOTH: "Both",
    Outcome.DUPLICATE: "Dupe",
    Outcome.BACKGROUND: "Bkg",
    Outcome.MISSED: "Miss",
}
"""The mistakes, with their names in TIDE."""


@dataclass(frozen=True)
class Detection:
    """A result in COCO's format, its outcome, and the annotation that it matches or belongs to.

    ``object`` is None for background, and where the detection is not counted.
    """

    result: dict[str, Any]
    outcome: Outcome
    object: dict[str, Any] | None = None


@dataclass
class ImageOutcomes:
    """Of one image: detections, the highest score first; each annotation with its outcome.

    An annotation is ``CORRECT``, ``LOCALISATION``, ``WRONG_CLASS``, ``MISSED`` or ``IGNORED`` (a
    crowd).
    """

    detections: list[Detection] = field(default_factory=list)
    objects: list[tuple[dict[str, Any], Outcome]] = field(default_factory=list)

    @property
    def badness(self) -> float:
        """Scores of the false positives, plus one for each object that is not ``CORRECT``."""
        wrong = sum(d.result["score"] for d in self.detections if d.outcome in ERRORS)
        return wrong + sum(outcome in ERRORS for _, outcome in self.objects)


@dataclass(frozen=True)
class Analysis:
    """The result of :func:`analyse_results`.

    Attributes:
        images: by image id, for each image of the data set.
        confusion: (K + 1, K + 1), objects by their class (rows) and the class of their detection
            (columns), in the order of the category ids. An object's detection is the one with the
            highest score that covers it, of any class. The last column counts objects without a
            detection, the last row detections without an object.
        lost_ap: by error, the AP at this IoU that would be gained without the mistakes of this
            kind, 0-100, from all results, also those below the threshold.
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
        """Number of correct detections and of each kind of mistake."""
        images = self.images.values()
        found = Counter(d.outcome for image in images for d in image.detections)
        objects = Counter(outcome for image in images for _, outcome in image.objects)
        found[Outcome.MISSED] = objects[Outcome.MISSED]
        return {outcome: found[outcome] for outcome in (Outcome.CORRECT, *ERRORS)}

    @cached_property
    def by_class(self) -> dict[Any, tuple[int, int, int]]:
        """By category id: number of objects, of correct ones, of detections that count."""
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
        """Detections that are mistakes, the highest score first."""
        found = (d for image in self.images.values() for d in image.detections)
        return sorted((d for d in found if d.outcome in ERRORS), key=lambda d: -d.result["score"])

    def most_confused(self, count: int) -> list[tuple[int, int, int]]:
        """The most frequent confusions: indices of the object's and the detection's class, number.

        Without the background.
        """
        return most_confused(self.confusion[:-1, :-1], count)


def most_confused(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The largest numbers beside the diagonal of a confusion matrix: row, column, number."""
    classes = matrix.copy()
    np.fill_diagonal(classes, 0)
    pairs = np.argwhere(classes)
    order = np.argsort(-classes[tuple(pairs.T)], kind="stable")[:count]
    return [(int(a), int(b), int(classes[a, b])) for a, b in pairs[order]]


def analyse_results(
    truth: GroundTruth,
    results: Sequence[dict[str, Any]],
    task: str,
    *,
    score_threshold: float = 0.5,
    iou: float = 0.5,
) -> Analysis:
    """Find the outcome of each result and object.

    Args:
        results: in COCO's format.
        task: ``"bbox"`` or ``"segm"``.
        score_threshold: results with lower scores are left out, 0-1.
        iou: from which overlap a detection matches an object, one of 0.5, 0.55, … 0.95.

    Raises:
        ValueError: an argument is out of range; see also :func:`.evaluate_results`.
    """
    check_choice("task", task, ("bbox", "segm"))
    if not 0 <= score_threshold <= 1:
        raise ValueError(f"the score threshold must be from 0 to 1, got {score_threshold}")
    if not np.isclose(20 * iou, round(20 * iou)) or not 0.5 <= iou <= 0.95:
        raise ValueError(f"iou must be one of 0.5, 0.55, … 0.95, got {iou}")
    shown = [result for result in results if result["score"] >= score_threshold]
    status = _match(truth, shown, task).image_diagnostics(iou_thr=iou)
    images = _outcomes(truth, shown, task, iou, status)
    lost = _match(truth, results, task).tide_errors(pos_thr=iou, bg_thr=_BACKGROUND_IOU)
    return Analysis(
        task=task,
        score_threshold=score_threshold,
        iou=iou,
        category_ids=tuple(truth.categories),
        images=images,
        confusion=_confusion(truth, images, task, iou),
        lost_ap={outcome: 100 * lost["delta_ap"][name] for outcome, name in ERRORS.items()},
    )


def _match(truth: GroundTruth, results: Sequence[dict], task: str) -> hotcoco.COCOeval:
    loaded = load_evaluation(truth, results, task)
    matching = hotcoco.COCOeval(loaded.cocoGt, loaded.cocoDt, task)
    matching.evaluate()
    return matching


def _outcomes(
    truth: GroundTruth, results: Sequence[dict], task: str, iou: float, status: dict[str, Any]
) -> dict[Any, ImageOutcomes]:
    annotations = truth.coco.dataset["annotations"]
    images = {image_id: ImageOutcomes() for image_id in truth.images}
    objects, places = defaultdict(list), defaultdict(list)
    for annotation in annotations:
        if annotation["image_id"] in images and annotation["category_id"] in truth.categories:
            objects[annotation["image_id"]].append(annotation)
    # hotcoco numbers results and annotations from 1, in their order.
    for place, result in enumerate(results, start=1):
        places[result["image_id"]].append(place)
    for image_id, image in images.items():
        own = sorted(places[image_id], key=lambda place: -results[place - 1]["score"])
        kinds = {place: status["dt_status"].get(place) for place in own}
        matched = {p: annotations[status["dt_match"][p] - 1] for p in own if kinds[p] == "tp"}
        real = [annotation for annotation in objects[image_id] if not annotation["iscrowd"]]
        wrong = [place for place in own if kinds[place] == "fp"]
        overlaps = _overlaps(truth, [results[place - 1] for place in wrong], real, task)
        mistakes = {
            place: _mistake(results[place - 1], row, real, iou)
            for place, row in zip(wrong, overlaps, strict=True)
        }
        correct = {place: (Outcome.CORRECT, annotation) for place, annotation in matched.items()}
        outcomes = correct | mistakes
        for place in own:
            outcome = outcomes.get(place, (Outcome.IGNORED, None))
            image.detections.append(Detection(results[place - 1], *outcome))
        of_objects = {
            id(annotation): outcome
            for outcome, annotation in (*reversed(mistakes.values()), *correct.values())
            if outcome in (Outcome.WRONG_CLASS, Outcome.LOCALISATION, Outcome.CORRECT)
        }
        for annotation in objects[image_id]:
            outcome = of_objects.get(id(annotation), Outcome.MISSED)
            image.objects.append(
                (annotation, Outcome.IGNORED if annotation["iscrowd"] else outcome)
            )
    return images


def _mistake(
    result: dict, overlaps: np.ndarray, objects: Sequence[dict], iou: float
) -> tuple[Outcome, dict | None]:
    """The kind of mistake of a detection, and its object; ``overlaps`` are its IoUs with each."""
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
    """(R, O), IoU of each result with each object."""
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
    """Without crowds and their detections: hotcoco counts these as objects and as background."""
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
    return found["matrix"].astype(np.int64, copy=False)

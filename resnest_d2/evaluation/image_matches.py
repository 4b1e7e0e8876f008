"""COCO's AP of many resamples of a data set, from one matching.

COCO matches detections with objects image by image. So a data set in which images count twice or
not at all needs no new matching: AP is accumulated with a weight per image, for many resamples at
once. The result is the AP of a data set in which each image is present that many times, under
different ids. Where detections of different images have equal scores, their order in pycocotools
depends on the ids.

hotcoco's ``compare`` has intervals too, but none by class and none over several runs, and those of
version 1.3 are a quarter too narrow: there, an image that is drawn twice counts once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import hotcoco
import numpy as np

from .coco_metrics import load_evaluation
from .ground_truth import GroundTruth

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")

_MAX_DETECTIONS = 100  # of an image and class, COCO's
_AT_ONCE = 2**20  # numbers in an array


@dataclass(frozen=True)
class ClassMatches:
    """Detections of one class that count in one range of sizes, the highest score first.

    Attributes:
        images: position of the image of each detection (D,).
        true, false: whether it is a true or a false positive (T, D), by IoU threshold; neither
            where it is ignored.
        objects: number of objects to detect in each image (I,).
        recalls: recall thresholds at which COCO reads precision (R,).
    """

    images: np.ndarray
    true: np.ndarray
    false: np.ndarray
    objects: np.ndarray
    recalls: np.ndarray

    def average_precision(self, times: np.ndarray) -> np.ndarray:
        """(T, B): AP by IoU threshold, 0-1, of B data sets; NaN where one has no object.

        Args:
            times: how many times each image counts in each data set (B, I), float64.
        """
        columns = max(1, _AT_ONCE // max(1, len(self.images)))
        parts = [times[start : start + columns] for start in range(0, len(times), columns)]
        return np.concatenate([self._average_precision(part) for part in parts], axis=1)

    def _average_precision(self, times: np.ndarray) -> np.ndarray:
        objects = times @ self.objects.astype(np.float64)  # (B,)
        objects[objects == 0] = np.nan
        weights = times.T[self.images]  # (D, B)
        # Most detections are false at every threshold. These are summed only once.
        always_false = self.false.all(axis=0)
        others = np.flatnonzero(~always_false)
        before = _sums(weights[always_false])[np.cumsum(always_false)[others]]  # (O, B)
        weights = weights[others]
        return np.stack(
            [
                self._at_threshold(weights, before, true[others], false[others], objects)
                for true, false in zip(self.true, self.false, strict=True)
            ]
        )

    def _at_threshold(self, weights, before, true, false, objects) -> np.ndarray:
        """COCO's interpolated AP (B,), read at the true positives, which alone raise recall."""
        found = np.cumsum(weights[true], axis=0)  # (N, B)
        wrong = before[true] + _sums(weights[false])[np.cumsum(false)[true]]
        precision = found / (wrong + found + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        reached = np.searchsorted(self.recalls, found / objects, side="right")
        reached = np.diff(reached, axis=0, prepend=0)  # thresholds first reached here
        area = (reached * precision).sum(axis=0) / len(self.recalls)
        return np.where(np.isnan(objects), np.nan, area)


def match_class(evaluation, category: int) -> dict[str, ClassMatches]:
    """Match one class, given by its position, with hotcoco.

    Args:
        evaluation: from :func:`.load_evaluation`.

    Returns:
        By COCO's range of sizes: ``all``, ``small``, ``medium``, ``large``.
    """
    matching = hotcoco.COCOeval(evaluation.cocoGt, evaluation.cocoDt, evaluation.params.iouType)
    settings = matching.params
    settings.cat_ids = [category]
    images = sorted(evaluation.params.imgIds)
    settings.img_ids = images
    settings.max_dets = [1, 10, _MAX_DETECTIONS]
    matching.evaluate()
    entries = sorted(filter(None, matching.eval_imgs), key=lambda entry: entry["image_id"])
    thresholds, recalls = len(settings.iou_thrs), np.array(settings.rec_thrs)
    return {
        label: _collect(
            [entry for entry in entries if entry["aRng"] == list(bounds)],
            len(images),
            thresholds,
            recalls,
        )
        for label, bounds in zip(settings.area_rng_lbl, settings.area_rng, strict=True)
    }


def weighted_metrics(
    truth: GroundTruth,
    results: list[dict],
    task: str,
    times: np.ndarray,
    *,
    on_class: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """(K, 6, B): :data:`METRICS` of each class on B data sets, 0-100; NaN without such objects.

    Classes are in the order of their ids. Raises as :func:`.evaluate_results`.

    Args:
        times: see :meth:`ClassMatches.average_precision`.
        on_class: called after each class, for a progress bar.
    """
    evaluation = load_evaluation(truth, results, task)
    classes = []
    for category in truth.categories.values():
        matches = match_class(evaluation, category)
        aps = {size: found.average_precision(times) for size, found in matches.items()}  # (T, B)
        by_size = [ap.mean(axis=0) for ap in aps.values()]
        at_50, at_75 = aps["all"][0], aps["all"][5]
        classes.append(np.stack([by_size[0], at_50, at_75, *by_size[1:]]))
        on_class()
    return 100 * np.stack(classes)


def _collect(
    entries: list[dict], images: int, thresholds: int, recalls: np.ndarray
) -> ClassMatches:
    """One class and range of sizes, from hotcoco's entries, one per image and in their order."""
    objects = np.zeros(images, np.int64)
    places, scores = [np.zeros(0, np.int64)], [np.zeros(0)]
    matched, ignored = ([np.zeros((thresholds, 0), bool)] for _ in range(2))
    for entry in entries:
        place, number = entry["image_id"], len(entry["dtScores"])
        objects[place] = len(entry["gtIgnore"]) - sum(entry["gtIgnore"])
        if number:
            places.append(np.full(number, place))
            scores.append(np.array(entry["dtScores"]))
            matched.append(np.array(entry["dtMatched"], bool))
            ignored.append(np.array(entry["dtIgnore"], bool))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    counts = ~np.concatenate(ignored, axis=1)[:, order]
    true = np.concatenate(matched, axis=1)[:, order] & counts
    false = counts & ~true
    some = counts.any(axis=0)
    places = np.concatenate(places)[order]
    return ClassMatches(places[some], true[:, some], false[:, some], objects, recalls)


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, … rows (n, B) → (n + 1, B)."""
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])

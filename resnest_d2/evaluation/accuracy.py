"""COCO's AP of a run: overall, by size, by class, with the precision-recall curve of each class."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .coco_metrics import evaluate_results
from .ground_truth import GroundTruth
from .image_matches import METRICS


@dataclass(frozen=True)
class Accuracy:
    """AP of one task, 0-100; NaN where there is no such object.

    Attributes:
        task: ``"bbox"`` or ``"segm"``.
        metrics: :data:`.METRICS`, the mean over the classes.
        classes: the same of each class, in the order of the category ids.
        recalls: at which precision is read (R,), 0-1.
        precision: by class (K, R), 0-1, at IoU 0.5. As COCO defines it, it never rises with recall;
            0 at recalls that are not reached, NaN for a class without objects.
    """

    task: str
    metrics: dict[str, float]
    classes: tuple[dict[str, float], ...]
    recalls: np.ndarray
    precision: np.ndarray


def measure_accuracy(truth: GroundTruth, results: Sequence[dict[str, Any]], task: str) -> Accuracy:
    """Evaluate results; raises as :func:`.evaluate_results`."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints 12 lines
        found = evaluate_results(truth, results, task)
    precision = found.eval["precision"][..., -1]  # (T, R, K, A) at 100 detections
    precision = np.where(precision < 0, np.nan, precision)
    aps = 100 * precision.mean(axis=1)  # (T, K, A); T: IoU 0.5 to 0.95; A: all sizes, then each
    by_size = aps.mean(axis=0).T  # (A, K)
    values = np.stack([by_size[0], aps[0, :, 0], aps[5, :, 0], *by_size[1:]])  # (METRICS, K)
    return Accuracy(
        task=task,
        metrics=dict(zip(METRICS, map(_mean, values), strict=True)),
        classes=tuple(dict(zip(METRICS, own, strict=True)) for own in values.T.tolist()),
        recalls=np.array(found.params.recThrs),
        precision=precision[0, :, :, 0].T.copy(),  # a view would keep the whole array
    )


def _mean(values: np.ndarray) -> float:
    """The mean without NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")

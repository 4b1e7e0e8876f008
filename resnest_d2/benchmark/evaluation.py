"""COCO evaluation by our default implementation against pycocotools: time and numbers.

What is timed is the way from results in memory to the 12 numbers: checks, conversion, matching,
accumulation, summary. The ground truth is loaded and indexed before, for both, and each runs once
untimed: a process's first use of its memory costs the faster one as much as its work.
"""

import contextlib
import io
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from ..evaluation import GroundTruth, evaluate_results
from .latency import LatencyComparison, compare_latency

__all__ = ["EvaluationComparison", "compare_evaluators", "draw_results"]

_HEIGHT, _WIDTH = 480, 640  # pixels
_ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)


@dataclass(frozen=True)
class EvaluationComparison:
    """Two implementations on the same results.

    Attributes:
        task: ``"bbox"`` or ``"segm"``.
        times: ours is hotcoco, the reference pycocotools.
        numbers: the 12 numbers of each, 0-1.
        difference: the largest one between the 12 numbers, and between all values of the
            precision, recall and score arrays, from which the numbers and each class's AP are
            taken.
    """

    task: str
    times: LatencyComparison
    numbers: dict[str, tuple[float, ...]]
    difference: float


def compare_evaluators(
    images: int = 5000, detections: int = 100, *, runs: int = 3, seed: int = 0
) -> list[EvaluationComparison]:
    """Time both implementations in turn, for boxes and for masks, on a drawn set.

    Args:
        images, detections, seed: see :func:`draw_results`.
        runs: timed runs of each implementation and task.
    """
    dataset, results = draw_results(images, detections, seed=seed)
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    truth = GroundTruth(coco)
    comparisons = []
    for task in ("bbox", "segm"):
        truth.as_hotcoco(task)  # is loaded, as coco is
        found = {}

        def evaluate(implementation, task=task, found=found):
            with contextlib.redirect_stdout(io.StringIO()):
                found[implementation] = evaluate_results(
                    truth, results, task, implementation=implementation
                )

        times = compare_latency(
            lambda: evaluate("hotcoco"),  # noqa: B023 (called in this turn)
            lambda: evaluate("pycocotools"),  # noqa: B023
            runs=runs,
            warmup=1,
        )
        ours, reference = found["hotcoco"], found["pycocotools"]
        differences = [np.abs(ours.stats - reference.stats).max()] + [
            np.abs(ours.eval[key] - reference.eval[key]).max()
            for key in ("precision", "recall", "scores")
        ]
        numbers = {name: tuple(evaluation.stats) for name, evaluation in found.items()}
        comparisons.append(EvaluationComparison(task, times, numbers, float(max(differences))))
    return comparisons


def draw_results(
    images: int, detections: int, *, classes: int = 80, seed: int = 0
) -> tuple[dict, list[dict]]:
    """A COCO data set and results for it, with boxes and masks (RLE), without pictures.

    Objects are small, medium and large, one in twelve a crowd. Half of an image's detections are
    near an object and mostly of its class, the others anywhere; scores have two decimals, so that
    many are equal.

    Args:
        detections: of each image.

    Returns:
        The content of an annotation file, and a list in COCO's results format.
    """
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image_id in range(1, images + 1):
        boxes = _boxes(rng, int(rng.integers(1, 15)))
        categories = rng.integers(1, classes + 1, len(boxes))
        masks = _masks(boxes)
        areas = mask_util.area(masks)
        for box, category, mask, area in zip(boxes, categories, masks, areas, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(category),
                    "bbox": box.tolist(),
                    "segmentation": _text(mask),
                    "area": float(area),
                    "iscrowd": int(rng.random() < 1 / 12),
                }
            )
        near = rng.integers(0, len(boxes), detections // 2)
        noise = rng.normal(0, 0.08, (len(near), 4)) * boxes[near][:, [2, 3, 2, 3]]
        found = np.concatenate([boxes[near] + noise, _boxes(rng, detections - len(near))])
        found[:, :2] = found[:, :2].clip(0, [_WIDTH - 2, _HEIGHT - 2])
        found[:, 2:] = found[:, 2:].clip(1, [_WIDTH, _HEIGHT] - found[:, :2])
        labels = rng.integers(1, classes + 1, detections)
        same = rng.random(len(near)) < 0.9
        labels[: len(near)][same] = categories[near][same]
        scores = rng.random(detections).round(2)
        for box, category, score, mask in zip(found, labels, scores, _masks(found), strict=True):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": int(category),
                    "bbox": box.tolist(),
                    "score": float(score),
                    "segmentation": _text(mask),
                }
            )
    dataset = {
        "images": [{"id": i, "height": _HEIGHT, "width": _WIDTH} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, classes + 1)],
        "annotations": annotations,
    }
    return dataset, results


def _boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    """Boxes (number, 4), x, y, width, height, of sides from 6 to 300 pixels."""
    sides = np.exp(rng.uniform(np.log(6), np.log(300), (number, 2)))
    corners = rng.random((number, 2)) * ([_WIDTH, _HEIGHT] - sides)
    return np.concatenate([corners, sides], axis=1)


def _masks(boxes: np.ndarray) -> list[dict]:
    """The ellipse in each box, as a polygon of 12 points, compressed RLE."""
    centres, radii = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:] / 2
    circle = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)  # (12, 2)
    points = centres[:, None] + radii[:, None] * circle  # (number, 12, 2)
    return mask_util.frPyObjects(points.reshape(len(boxes), -1).tolist(), _HEIGHT, _WIDTH)


def _text(mask: dict) -> dict:
    return {"size": mask["size"], "counts": mask["counts"].decode()}

"""Folders of runs as training and evaluation leave them, without either."""

import contextlib
import copy
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from resnest_d2 import get_config
from resnest_d2.evaluation import GroundTruth
from resnest_d2.evaluation.coco_evaluator import RESULTS
from resnest_d2.evaluation.data_file import write_data_file

CLASSES = ("circle", "square", "star", "ring")
_HEIGHT, _WIDTH = 480, 640  # pixels
_ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)


def write_data(file: str | os.PathLike, *, images: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Write a random COCO file of small, medium and large objects of four classes; results for it.

    There are boxes and masks, and no image files. No two scores are equal.
    """
    dataset, results = draw_results(images, 12, classes=len(CLASSES), seed=seed)
    for image in dataset["images"]:
        image["file_name"] = f"{image['id']}.png"
    for category, name in zip(dataset["categories"], CLASSES, strict=True):
        category["name"] = name
    for number, result in enumerate(results):
        result["score"] = (100 * result["score"] + number / len(results)) / 101
    Path(file).write_text(json.dumps(dataset))
    return results


def write_run(
    folder: str | os.PathLike,
    json_file: str | os.PathLike,
    results: list[dict[str, Any]],
    *opts: str,
    config: str = "sample_mask_rcnn_resnest14_fpn",
    images: str | os.PathLike | None = None,
) -> Path:
    """Write a run's folder with its config and its detections.

    Args:
        opts: ``KEY VALUE …`` for the config.
        images: folder of the images; by default the JSON file's.
    """
    folder = Path(folder)
    inference = folder / "inference"
    inference.mkdir(parents=True)
    cfg = get_config(config, ["OUTPUT_DIR", str(folder), *opts])
    (folder / "config.yaml").write_text(cfg.dump())
    (inference / RESULTS).write_text(json.dumps(results))
    root = images or Path(json_file).parent
    write_data_file(inference, json_file=json_file, image_root=root)
    return folder


def as_truth(dataset: dict) -> GroundTruth:
    """A COCO file's content as evaluation reads it."""
    coco = COCO()
    coco.dataset = copy.deepcopy(dataset)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it does
        coco.createIndex()
    return GroundTruth(coco)


def draw_results(
    images: int, detections: int, *, classes: int = 80, seed: int = 0
) -> tuple[dict, list[dict]]:
    """A COCO data set and results for it, with boxes and masks (RLE), without image files.

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

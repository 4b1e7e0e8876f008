"""Folders of runs as training and evaluation leave them, without either."""

import contextlib
import copy
import io
import json
import os
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from resnest_d2 import get_config
from resnest_d2.benchmark import draw_results
from resnest_d2.evaluation import GroundTruth
from resnest_d2.evaluation.coco_evaluator import RESULTS, write_data_file

CLASSES = ("circle", "square", "star", "ring")


def write_data(file: str | os.PathLike, *, images: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Write a random COCO file of small, medium and large objects of four classes; results for it.

    There are boxes and masks, and no pictures. No two scores are equal.
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
        images: folder of the pictures; by default the JSON file's.
    """
    folder = Path(folder)
    inference = folder / "inference"
    inference.mkdir(parents=True)
    cfg = get_config(config, ["OUTPUT_DIR", str(folder), *opts])
    (folder / "config.yaml").write_text(cfg.dump())
    (inference / RESULTS).write_text(json.dumps(results))
    write_data_file(inference, str(json_file), str(images or Path(json_file).parent))
    return folder


def as_truth(dataset: dict) -> GroundTruth:
    """A COCO file's content as evaluation reads it."""
    coco = COCO()
    coco.dataset = copy.deepcopy(dataset)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it does
        coco.createIndex()
    return GroundTruth(coco)

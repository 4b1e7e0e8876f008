"""An evaluated detector: its detections, and the data set that they belong to.

The results are ``coco_instances_results.json``.
"""

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from detectron2.config import CfgNode

from ..data.check.data_sets import examine
from ..data.check.normalise import given_ids, id_key
from ..data.check.problems import report
from ..data.check.rle import check_text
from ..data.formats.coco import read_sound_coco
from ..evaluation.coco_evaluator import RESULTS
from ..evaluation.ground_truth import GroundTruth
from ..evaluation.image_matches import weighted_metrics
from ..text import printable
from .run_folder import (
    EvaluatedRun,
    WeightedMetrics,
    is_number,
    read_history,
    read_json,
    recorded_data,
    results_file,
)

# Problems with which pycocotools would crash, or give wrong numbers.
_UNSAFE = frozenset(
    "bad-box bad-iscrowd bad-segmentation bad-polygon stray-polygon bad-rle rle-size".split()
)
_OBJECT = ("image_id", "category_id", "bbox", "segmentation", "area", "iscrowd", "ignore")


@dataclass(frozen=True)
class DetectionRun(EvaluatedRun):
    """Detections of a run, with what is needed to judge and to show them.

    Attributes:
        json_file, image_root, truth: the data set of the evaluation, and its objects.
        results: in COCO's format, with the data set's category ids.
    """

    json_file: Path
    image_root: Path
    truth: GroundTruth
    results: list[dict[str, Any]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """``("bbox",)`` or ``("bbox", "segm")``."""
        return ("bbox", "segm") if self.config.MODEL.MASK_ON else ("bbox",)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the category ids."""
        return tuple(self.truth.coco.cats[i]["name"] for i in sorted(self.truth.coco.cats))

    @property
    def num_images(self) -> int:
        return len(self.truth.images)

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Median height and width of the images, pixels; 480, 640 if the data has no sizes."""
        sizes = [(i.get("height"), i.get("width")) for i in self.truth.coco.imgs.values()]
        sizes = [size for size in sizes if all(size)] or [(480, 640)]
        return tuple(int(median(side)) for side in zip(*sizes, strict=True))

    @property
    def data(self) -> Path:
        return self.json_file

    def content(self, tasks: Sequence[str]) -> dict[str, dict]:
        for task in tasks:
            self.truth.complete(task)  # one file may state what another leaves out
        objects: dict[Any, Counter] = {}
        for annotation in self.truth.coco.dataset["annotations"]:
            values = repr([annotation.get(key) for key in _OBJECT])
            objects.setdefault(annotation["image_id"], Counter())[values] += 1
        return {
            "images": {i: True for i in self.truth.images},
            "categories": {i: category["name"] for i, category in self.truth.coco.cats.items()},
            "objects of images": objects,
        }

    def weighted_metrics(
        self, task: str, times: np.ndarray, *, on_class: Callable[[], object] = lambda: None
    ) -> WeightedMetrics:
        found = weighted_metrics(self.truth, self.results, task, times, on_class=on_class)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
            return WeightedMetrics(np.nanmean(found, axis=0), found[:, 0])


def read_detection_run(
    folder: Path, config: CfgNode, data: tuple[str, str] | None = None
) -> DetectionRun:
    """See :func:`.read_evaluated_run`.

    Args:
        data: (COCO json file, image folder) of the evaluation, if they have moved.
    """
    results_json = results_file(folder, RESULTS, "--val-json FILE")
    if data and not data[0]:
        raise ValueError(f"{folder} was evaluated on a COCO file: give --val-json FILE too")
    json_file, image_root = map(
        Path, data or recorded_data(results_json, "json_file", "image_root")
    )
    structure = COCO()
    structure.dataset = _read_truth(json_file)
    if not structure.dataset["annotations"]:
        raise ValueError(f"{json_file} has no annotations to compare the results of {folder} with")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints progress
        structure.createIndex()
    run = DetectionRun(
        folder=folder,
        config=config,
        history=read_history(folder / "metrics.json"),
        json_file=json_file,
        image_root=image_root,
        truth=GroundTruth(structure, name=str(json_file)),
        results=read_json(results_json, list),
    )
    _use_own_ids(run.results, structure)
    _check_results(results_json, run.results, structure.imgs, run.tasks)
    return run


def _read_truth(json_file: Path) -> dict[str, list[dict]]:
    """A data set whose boxes and masks are safe for pycocotools, which checks nothing."""
    dataset = read_sound_coco(json_file)
    unsafe = [p for p in examine(str(json_file)).problems if p.kind in _UNSAFE]
    if unsafe:
        raise ValueError(f"{json_file} cannot be used\n{report(unsafe, limit=3)}")
    return dataset


def _use_own_ids(results: list, truth: COCO) -> None:
    """Replace the ids of the user's file by those that reading the file has given, in place."""
    for key, entries in (("image_id", truth.imgs), ("category_id", truth.cats)):
        numbers = {id_key(given): number for number, given in given_ids(entries).items()}
        for result in results if numbers else ():
            if type(result) is dict and type(result.get(key)) in (int, float, str):
                result[key] = numbers.get(id_key(result[key]), result[key])


def _check_results(file: Path, results: list, images: Mapping, tasks: Sequence[str]) -> None:
    """Refuse results that are not in COCO's format: what uses them does not check them."""
    for place, result in enumerate(results):
        if type(result) is not dict:
            raise ValueError(f"{file}: result {place} is a {type(result).__name__}, not an object")
        image = images.get(result.get("image_id")) if _is_id(result.get("image_id")) else None
        size = image and [image.get("height"), image.get("width")]
        mask = result.get("segmentation") if "segm" in tasks else None
        for key, sound in (
            ("image_id", _is_id(result.get("image_id"))),
            ("category_id", _is_id(result.get("category_id"))),
            ("score", is_number(result.get("score"))),
            ("bbox", _are_numbers(result.get("bbox"), 4)),
            ("segmentation", "segm" not in tasks or _is_rle(mask, size)),
        ):
            if not sound:
                value = printable(repr(result.get(key)), 60)
                raise ValueError(f"{file}: result {place} has no valid {key}, got {value}")
        if mask and (problem := check_text(mask["counts"], mask["size"][0] * mask["size"][1])):
            raise ValueError(f"{file}: result {place} has no valid segmentation: {problem}")


def _is_id(value: object) -> bool:
    return type(value) in (int, str)


def _are_numbers(value: object, count: int) -> bool:
    return type(value) is list and len(value) == count and all(map(is_number, value))


def _is_rle(mask: object, size: list | None) -> bool:
    """An RLE of the image's height and width, if known; its counts are checked later."""
    return (
        type(mask) is dict
        and type(mask.get("counts")) is str
        and _are_numbers(mask.get("size"), 2)
        and (not size or mask["size"] == size)
    )

"""The objects of a data set, completed and checked for COCO's metrics.

pycocotools fails where an annotation lacks a field that training does not need, and gives wrong
numbers where ids are unusual. Both are corrected here once, for every implementation:

- A missing ``iscrowd`` is 0; a missing ``area`` is that of the mask, else of the box; an object
  without labelled keypoints is ignored, as in COCO.
- Annotation ids that repeat or contain 0 are renumbered: pycocotools never matches an object with
  the id 0.
- hotcoco takes only natural numbers as ids. It gets the position of each image and category in the
  order of their ids, so these may be negative numbers or texts, as in pycocotools.
"""

import logging
from typing import Any

import hotcoco
import numpy as np
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

logger = logging.getLogger(__name__)

# What a task compares, in annotations and in results.
GEOMETRY = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}

_SIZE = {"height", "width"}  # of an image


class GroundTruth:
    """A data set to compare results with.

    Args:
        coco: the data set. Its annotations are completed in place.
        name: for errors; the name of its file.

    Attributes:
        images, categories: position of each id among the sorted ids.
    """

    def __init__(self, coco: COCO, name: str = "the ground truth"):
        self.coco = coco
        self.name = name
        self.images, self.categories = (
            {i: position for position, i in enumerate(sorted({r["id"] for r in coco.dataset[key]}))}
            for key in ("images", "categories")
        )
        self._complete: set[str] = set()  # tasks
        self._hotcoco: dict[str, hotcoco.COCO] = {}  # by task
        ids = [annotation["id"] for annotation in coco.dataset["annotations"]]
        if 0 in ids or len(set(ids)) < len(ids):
            logger.warning(
                f"{name}: annotation ids repeat or contain 0, which pycocotools miscounts; they "
                "are renumbered for this evaluation"
            )
            for number, annotation in enumerate(coco.dataset["annotations"], start=1):
                annotation["id"] = number
            coco.createIndex()

    def complete(self, task: str) -> None:
        """Fill in what a task needs of each object.

        Raises:
            ValueError: the box, mask or keypoints of an object are missing or malformed.
        """
        if task in self._complete:
            return
        unsized = [i for i, image in self.coco.imgs.items() if not _SIZE <= image.keys()]
        if task == "segm" and unsized:
            raise ValueError(f"{self.name}: images {unsized[:5]} have no height and width")
        for annotation in self.coco.dataset["annotations"]:
            annotation["iscrowd"] = annotation.get("iscrowd") or 0
            if task == "segm":
                if not _has_mask(annotation):
                    allowed = "must be RLE, or polygons of at least 3 points"
                    raise ValueError(self._says(annotation, "segmentation", allowed))
            elif len(annotation.get("bbox") or ()) != 4:
                raise ValueError(self._says(annotation, "bbox", "must be [x, y, width, height]"))
            if task == "keypoints":
                keypoints = annotation["keypoints"] = annotation.get("keypoints") or []
                annotation.setdefault("num_keypoints", int(np.count_nonzero(keypoints[2::3])))
            if annotation.get("area") is None:
                annotation["area"] = self._area(annotation)
        self._complete.add(task)

    def as_hotcoco(self, task: str) -> hotcoco.COCO:
        """The objects for a task of hotcoco, with positions as ids; built once."""
        if task not in self._hotcoco:
            self.complete(task)
            keys = ["area", "iscrowd", GEOMETRY[task]]
            if task == "keypoints":
                keys += ["bbox", "num_keypoints"]
            annotations = [
                {
                    "id": number,
                    "image_id": self.images[annotation["image_id"]],
                    "category_id": self.categories[annotation["category_id"]],
                    **{key: annotation[key] for key in keys},
                }
                for number, annotation in enumerate(self.coco.dataset["annotations"], start=1)
                # Others count in no implementation.
                if annotation["image_id"] in self.images
                and annotation["category_id"] in self.categories
            ]
            images = [
                {
                    "id": position,
                    **{k: self.coco.imgs[i][k] for k in _SIZE & self.coco.imgs[i].keys()},
                }
                for i, position in self.images.items()
            ]
            categories = [{"id": i, "name": str(i)} for i in self.categories.values()]
            self._hotcoco[task] = hotcoco.COCO(
                {"images": images, "categories": categories, "annotations": annotations}
            )
        return self._hotcoco[task]

    def _area(self, annotation: dict[str, Any]) -> float:
        image = self.coco.imgs.get(annotation["image_id"], {})
        if _has_mask(annotation) and _SIZE <= image.keys():
            return float(mask_util.area(self.coco.annToRLE(annotation)))
        _, _, width, height = annotation.get("bbox") or (0, 0, 0, 0)
        return float(width * height)

    def _says(self, annotation: dict[str, Any], key: str, allowed: str) -> str:
        value = str(annotation.get(key))
        value = value if len(value) < 60 else value[:57] + "…"
        return f"{self.name}: {key} of annotation {annotation['id']} {allowed}, got {value}"


def _has_mask(annotation: dict[str, Any]) -> bool:
    mask = annotation.get("segmentation")
    if isinstance(mask, dict):
        return {"size", "counts"} <= mask.keys()
    return bool(mask) and all(
        isinstance(polygon, (list, tuple)) and len(polygon) >= 6 and len(polygon) % 2 == 0
        for polygon in mask
    )

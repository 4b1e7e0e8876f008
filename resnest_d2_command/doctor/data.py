"""Checks the folders of COCO and of the published weights."""

import os
from pathlib import Path

from .children import Outcome
from .findings import OK, WARNING, Check, gib

GROUP = "Data and weights"

_COCO = (  # annotations and images of Detectron2's COCO 2017 data sets
    ("instances_train2017.json", "train2017"),
    ("instances_val2017.json", "val2017"),
    ("person_keypoints_train2017.json", "train2017"),
    ("person_keypoints_val2017.json", "val2017"),
    ("panoptic_train2017.json", "panoptic_train2017"),
    ("panoptic_val2017.json", "panoptic_val2017"),
)


def check_data(weights: Outcome) -> list[Check]:
    """
    Args:
        weights: of the probe of that name.
    """
    checks = [_coco(), _cache(weights)]
    folder = os.environ.get("RESNEST_D2_WEIGHTS")
    if folder and Path(folder).is_dir():
        checks.append(Check(GROUP, "RESNEST_D2_WEIGHTS", OK, folder))
    elif folder:
        found, remedy = f"{folder} is no folder", "unset RESNEST_D2_WEIGHTS"
        checks.append(Check(GROUP, "RESNEST_D2_WEIGHTS", WARNING, found, remedy))
    return checks


def _coco() -> Check:
    value = os.environ.get("DETECTRON2_DATASETS")
    root = Path(value or "datasets").expanduser()
    coco, remedy = root / "coco", "export DETECTRON2_DATASETS=/the/folder/that/holds/coco"
    if not coco.is_dir() and value:
        missing = "has no folder coco/" if root.is_dir() else "is no folder"
        return Check(GROUP, "COCO", WARNING, f"DETECTRON2_DATASETS={value} {missing}", remedy)
    if not coco.is_dir():
        found = (
            f"DETECTRON2_DATASETS is not set, and {coco}/ does not exist. Needed for COCO, not for "
            "your own JSON"
        )
        return Check(GROUP, "COCO", OK, found)
    complete, without_images, missing = [], [], []
    for annotations, images in _COCO:
        if not (coco / "annotations" / annotations).is_file():
            missing.append(annotations)
        elif not (coco / images).is_dir() or not any(os.scandir(coco / images)):
            without_images.append(f"{annotations} without {images}/")
        else:
            complete.append(annotations)
    found = f"{coco} has {', '.join(complete) or 'no annotations with their images'}"
    if missing:
        found += f"; missing: {', '.join(missing)}"
    if without_images:
        found += f"; {', '.join(without_images)}"
    if complete and not without_images:
        return Check(GROUP, "COCO", OK, found)
    layout = "coco/annotations/instances_train2017.json, coco/train2017/*.jpg; val2017 likewise"
    return Check(GROUP, "COCO", WARNING, found, f"# expected: {layout}\n{remedy}")


def _cache(weights: Outcome) -> Check:
    folder = Path(os.environ.get("FVCORE_CACHE") or "~/.torch/iopath_cache").expanduser()
    found = "unknown which published files are here, because resnest_d2 does not import"
    if weights.worked:
        here = weights.facts["here"]
        found = f"{len(here)} of {weights.facts['published']} published files are here"
        if here:
            names = ", ".join(here[:3]) + (", …" if len(here) > 3 else "")
            found += f" ({gib(weights.facts['bytes'])}: {names})"
    found += f"; downloads go to {folder}"
    # The first download makes the folder, so its nearest existing parent must be writable.
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return Check(GROUP, "weights", OK, found)
    found += ", which is not writable"
    return Check(GROUP, "weights", WARNING, found, "export FVCORE_CACHE=/a/folder/with/space")

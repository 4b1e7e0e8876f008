"""Where COCO and the published weights are looked for, and what is there."""

import os
from pathlib import Path

from .children import Outcome
from .findings import OK, WARNING, Check
from .machine import gib

__all__ = ["check_data"]

GROUP = "Data and weights"

_COCO = (  # annotations, images: what Detectron2's names of COCO 2017 read
    ("instances_train2017.json", "train2017"),
    ("instances_val2017.json", "val2017"),
    ("person_keypoints_train2017.json", "train2017"),
    ("person_keypoints_val2017.json", "val2017"),
    ("panoptic_train2017.json", "panoptic_train2017"),
    ("panoptic_val2017.json", "panoptic_val2017"),
)


def check_data(outcomes: dict[str, Outcome]) -> list[Check]:
    return [_coco(), _cache(outcomes["weights"]), *_own_folder()]


def _coco() -> Check:
    name, value = "COCO", os.environ.get("DETECTRON2_DATASETS")
    root = Path(value or "datasets").expanduser()
    where = f"DETECTRON2_DATASETS={value}" if value else f"DETECTRON2_DATASETS is not set: {root}/"
    coco, remedy = root / "coco", "export DETECTRON2_DATASETS=/the/folder/that/holds/coco"
    if not coco.is_dir():
        if value:
            missing = "has no folder coco/" if root.is_dir() else "is no folder"
            return Check(GROUP, name, WARNING, f"{where} {missing}", remedy)
        found = f"{where} is looked at, and has no coco/. Needed for COCO, not for your own JSON"
        return Check(GROUP, name, OK, found)
    complete, without_images, missing = [], [], []
    for annotations, images in _COCO:
        if not (coco / "annotations" / annotations).is_file():
            missing.append(annotations)
        elif not _has_files(coco / images):
            without_images.append(f"{annotations} without {images}/")
        else:
            complete.append(annotations)
    found = f"{coco} has {', '.join(complete) or 'no annotations with their images'}"
    if missing:
        found += f"; not there: {', '.join(missing)}"
    if without_images:
        found += f"; {', '.join(without_images)}"
    if complete and not without_images:
        return Check(GROUP, name, OK, found)
    layout = (
        "# the layout is coco/annotations/instances_train2017.json, coco/train2017/*.jpg, and "
        f"val2017 likewise\n{remedy}"
    )
    return Check(GROUP, name, WARNING, found, layout)


def _has_files(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


def _cache(weights: Outcome) -> Check:
    value = os.environ.get("FVCORE_CACHE")
    folder = Path(value or "~/.torch/iopath_cache").expanduser()
    if weights.worked:
        facts = weights.facts
        found = f"{len(facts['here'])} of {facts['published']} published files are here"
        if facts["here"]:
            names = ", ".join(facts["here"][:3]) + (", …" if len(facts["here"]) > 3 else "")
            found += f" ({gib(facts['bytes'])}: {names})"
    else:
        found = "which published files are here is not known, as resnest_d2 does not import"
    found += f"; downloads go to {folder}"
    # The folder is made by the first download: its nearest parent must allow that.
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return Check(GROUP, "weights", OK, found)
    found += ", which cannot be written"
    return Check(GROUP, "weights", WARNING, found, "export FVCORE_CACHE=/a/folder/with/space")


def _own_folder() -> list[Check]:
    value = os.environ.get("RESNEST_D2_WEIGHTS")
    if not value:
        return []
    if Path(value).is_dir():
        return [Check(GROUP, "RESNEST_D2_WEIGHTS", OK, value)]
    found = f"{value} is no folder"
    return [Check(GROUP, "RESNEST_D2_WEIGHTS", WARNING, found, "unset RESNEST_D2_WEIGHTS")]

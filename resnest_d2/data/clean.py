"""Data sets without their broken entries, as JSON files beside the run that uses them.

Detectron2 reads a data set's JSON file twice, for its loader and for its evaluator: leaving entries
out on the way would make the two disagree. So the rest is written as a file of its own, and that is
registered.
"""

import json
import os
from collections.abc import Sequence

from .coco import name_of_files
from .folders import write_text
from .problems import Problem

__all__ = ["needs_rewriting", "read_problems", "write_clean_set", "write_problems"]

_FILLED = ("missing-area", "missing-iscrowd")


def needs_rewriting(problems: Sequence[Problem], left_out: Sequence[Problem]) -> bool:
    """Whether entries are left out, or lack what :func:`write_clean_set` fills in."""
    return bool(left_out) or any(problem.kind in _FILLED for problem in problems)


def write_clean_set(pair: tuple[str, str], left_out: Sequence[Problem], folder: str) -> str:
    """Write a data set without the entries of these problems, and without what depends on them.

    With an image or a category go its annotations. ``area`` (of the box) and ``iscrowd`` (0) are
    filled in where they are missing. The name and the content are the same in every process, and
    the file appears complete.

    Args:
        pair: json file and image folder; the file must be usable as a whole.
        left_out: problems of this pair.
        folder: where the file goes.

    Returns:
        The new file.

    Raises:
        ValueError: no image or no category is left.
    """
    json_file, image_root = pair
    with open(json_file, encoding="utf-8") as f:
        data = json.load(f)
    broken = {problem.entry for problem in left_out}
    kept = {
        section: [e for i, e in enumerate(data[section]) if (section, i) not in broken]
        for section in ("images", "annotations", "categories")
    }
    images, categories = ({e["id"] for e in kept[s]} for s in ("images", "categories"))
    kept["annotations"] = [
        {"area": _box_area(annotation), "iscrowd": 0, **annotation}
        for annotation in kept["annotations"]
        if annotation["image_id"] in images and annotation["category_id"] in categories
    ]
    for section in ("images", "categories"):
        if not kept[section]:
            raise ValueError(f"{json_file}: without the broken entries, no '{section}' are left")
    stem = name_of_files("clean", {"json_file": json_file, "image_root": image_root})
    path = os.path.join(folder, f"{stem}.json")
    write_text(path, json.dumps({**data, **kept}))
    return path


def _box_area(annotation: dict) -> float:
    return annotation["bbox"][2] * annotation["bbox"][3]


def write_problems(problems: Sequence[Problem], path: str) -> None:
    """Write the list: ``{"problems": [{"file", "id", "kind", "value", "severity"}]}``."""
    write_text(path, json.dumps({"problems": [p.as_dict() for p in problems]}, indent=1))


def read_problems(path: str) -> list[Problem]:
    """What :func:`write_problems` wrote."""
    with open(path, encoding="utf-8") as f:
        found = json.load(f)["problems"]
    return [Problem(**{key: p[key] for key in ("file", "id", "kind", "value")}) for p in found]

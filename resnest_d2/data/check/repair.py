"""From a COCO file as it is to one that Detectron2 trains on: mended, repaired, without the rest.

What is done follows from the problems that were found (:mod:`.problems`) and from
``on_bad_data``: ``refuse`` mends what loses nothing, ``repair`` repairs too, ``skip`` also leaves
out what is broken.

Detectron2 reads a data set's JSON file twice, for its loader and for its evaluator: changing
entries on the way would make the two disagree. So a changed set is written as a file of its own,
and that is registered.
"""

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from fvcore.transforms.transform import CropTransform
from pycocotools import mask as mask_util

from ...files import write_text
from .kinds import MENDED, OF_KEYPOINTS, OF_MASKS, UNREADABLE_KEYPOINTS, UNREADABLE_MASKS
from .objects import polygon_problem
from .problems import Problem, shown
from .structure import Structure, entry_id, image_size, read_structure

__all__ = [
    "UsableSet",
    "make_usable",
    "of_any_model",
    "read_problems",
    "relevant",
    "without_entries",
    "write_problems",
    "write_usable",
]


@dataclass(frozen=True)
class UsableSet:
    """A data set's content, as far as it can be used.

    Attributes:
        content: of a COCO file; None where the file can stay as it is.
        mended: problems that are none any more.
        left_out: problems whose entries are left out, with what depends on them.
        refused: problems that are neither; with ``skip`` there are none.
        objects, lost: annotations of the file, each counted once, and how many are left out.
    """

    content: dict | None
    mended: tuple[Problem, ...] = ()
    left_out: tuple[Problem, ...] = ()
    refused: tuple[Problem, ...] = ()
    objects: int = 0
    lost: int = 0


def relevant(problems: Iterable[Problem], *, masks: bool, keypoints: bool) -> list[Problem]:
    """The problems that matter to a model with or without masks and keypoints."""
    ignored = (frozenset() if masks else OF_MASKS) | (frozenset() if keypoints else OF_KEYPOINTS)
    return [problem for problem in problems if problem.kind not in ignored]


def of_any_model(problems: Iterable[Problem]) -> list[Problem]:
    """The problems that matter also to a model that does not learn what an object lacks."""
    lacks = ("missing-mask", "missing-keypoints")
    return [problem for problem in problems if problem.kind not in lacks]


def make_usable(
    json_file: str,
    problems: Sequence[Problem],
    *,
    on_bad_data: str = "refuse",
    masks: bool = True,
    keypoints: bool = True,
    iscrowd: int | None = None,
    always: bool = False,
) -> UsableSet:
    """Mend, repair or leave out what has problems. The file itself is not changed.

    ``area`` is computed where it is missing: the mask's where there is one, else the box's.

    Args:
        json_file: a file that is usable as a whole.
        problems: all that were found in it and in its images.
        on_bad_data: one of :data:`.problems.BEHAVIOURS`.
        masks: whether masks are wanted; without them, unreadable ones are taken out and the objects
            stay.
        keypoints: whether keypoints are wanted.
        iscrowd: a value for all annotations.
        always: give the content also where nothing is changed.

    Raises:
        ValueError: no image or no category is left.
    """
    # What a model does not learn is taken out where Detectron2 could not load it.
    unread = {} if masks else dict.fromkeys(UNREADABLE_MASKS, ("segmentation",))
    if not keypoints:
        unread |= dict.fromkeys(UNREADABLE_KEYPOINTS, ("keypoints", "num_keypoints"))
    taken_out = [problem for problem in problems if problem.kind in unread]
    problems = relevant(problems, masks=masks, keypoints=keypoints)
    errors = [problem for problem in problems if problem.severity == "error"]
    mended = [problem for problem in problems if problem.kind in MENDED]
    if not (mended or errors or taken_out or always):
        return UsableSet(None)
    structure = read_structure(json_file)
    data = structure.data
    annotations = data["annotations"]
    for problem in taken_out:
        for key in unread[problem.kind]:
            annotations[problem.entry[1]].pop(key, None)
    _apply(_MENDING, mended, structure)
    if on_bad_data != "refuse":
        unsound = {problem.entry for problem in errors if problem.kind in UNREADABLE_MASKS}
        done = _apply(_REPAIRING, [p for p in errors if p.entry not in unsound], structure)
        mended += done
        repaired = {id(problem) for problem in done}
        errors = [problem for problem in errors if id(problem) not in repaired]
    left_out = errors if on_bad_data == "skip" else []
    spare = structure.merged | {p.entry for p in mended if p.kind == "maskless-crowd"}
    objects = sum(("annotations", index) not in spare for index in range(len(annotations)))
    kept = without_entries(data, spare | {problem.entry for problem in left_out}, json_file)
    lost = objects - len(kept["annotations"])
    if iscrowd is not None:
        mended += _set_iscrowd(annotations, iscrowd, json_file)
    for annotation in kept["annotations"] if on_bad_data == "skip" or not errors else ():
        if "area" not in annotation:
            annotation["area"] = _area(annotation, structure)
    if any(problem.kind == "no-annotations" for problem in mended):
        del kept["annotations"]  # by which evaluators know that there is nothing to score
    return UsableSet(
        kept,
        mended=tuple(mended),
        left_out=tuple(left_out),
        refused=() if left_out else tuple(errors),
        objects=objects,
        lost=lost,
    )


def without_entries(data: dict, dropped: Container[tuple[str, int]], json_file: str) -> dict:
    """A file's content without some entries, and without the annotations that refer to them.

    Args:
        dropped: sections and indices.

    Raises:
        ValueError: no image or no category is left.
    """
    kept = {
        section: [e for i, e in enumerate(data[section]) if (section, i) not in dropped]
        for section in ("images", "annotations", "categories")
    }
    for section in ("images", "categories"):
        if not kept[section]:
            raise ValueError(f"{json_file}: without the broken entries, no '{section}' are left")
    known = {section: {_id(entry) for entry in kept[section]} for section in kept}
    kept["annotations"] = [
        annotation
        for annotation in kept["annotations"]
        if _id(annotation, "image_id") in known["images"]
        and _id(annotation, "category_id") in known["categories"]
    ]
    return {**data, **kept}


def _set_iscrowd(annotations: list, iscrowd: int, json_file: str) -> list[Problem]:
    """Give all this value; the changes."""
    changes = []
    for index, annotation in enumerate(annotations):
        if isinstance(annotation, dict) and annotation["iscrowd"] != iscrowd:
            name, before = entry_id("annotations", index, annotation), shown(annotation["iscrowd"])
            entry = ("annotations", index)
            changes.append(Problem(json_file, name, "changed-iscrowd", before, entry))
            annotation["iscrowd"] = iscrowd
    return changes


def _id(entry: object, key: str = "id") -> object:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if type(value) is int else None


def write_usable(content: dict, json_file: str, folder: str) -> str:
    """Write the content of a file's usable copy into a folder, under a name that belongs to it."""
    text = json.dumps(content)
    stem = os.path.splitext(os.path.basename(json_file))[0]
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = os.path.join(folder, f"clean_{stem}_{digest}.json")
    write_text(path, text)
    return path


# ---- Repairs: of an entry, in place; whether it is sound now ----

_Repair = Callable[[dict, Problem, Structure], bool]


def _apply(
    repairs: dict[str, _Repair], problems: Sequence[Problem], structure: Structure
) -> list[Problem]:
    """Repair what has problems of these kinds, kind by kind; return what is mended."""
    done = []
    for kind, repair in repairs.items():
        for problem in problems:
            if problem.kind == kind:
                section, index = problem.entry
                if repair(structure.data[section][index], problem, structure):
                    done.append(problem)
    return done


def _size(annotation: dict, structure: Structure) -> tuple[int, int] | None:
    return image_size(structure.images.get(_id(annotation, "image_id"), {}))


def _drop_stray_polygons(annotation: dict, problem: Problem, structure: Structure) -> bool:
    size = _size(annotation, structure)
    annotation["segmentation"] = [
        polygon
        for polygon in annotation["segmentation"]
        if polygon_problem(polygon, size)[0] in (None, "polygon-outside")
    ]
    return True


def _clip_polygons(annotation: dict, problem: Problem, structure: Structure) -> bool:
    """As Detectron2 clips them, with shapely."""
    clip = CropTransform(0, 0, *_size(annotation, structure))
    polygons = [np.reshape(polygon, (-1, 2)) for polygon in annotation["segmentation"]]
    if clipped := [polygon.flatten().tolist() for polygon in clip.apply_polygons(polygons)]:
        annotation["segmentation"] = clipped
    return True


def _clip_box(annotation: dict, problem: Problem, structure: Structure) -> bool:
    x, y, width, height = annotation["bbox"]
    columns, rows = _size(annotation, structure)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, columns), min(y + height, rows)
    annotation["bbox"] = [left, top, right - left, bottom - top]
    if annotation.get("area") == width * height:
        annotation["area"] = (right - left) * (bottom - top)
    return True


def _rename(image: dict, problem: Problem, structure: Structure) -> bool:
    image["file_name"] = problem.value["found"]
    return True


def _ignored_to_crowd(annotation: dict, problem: Problem, structure: Structure) -> bool:
    """COCO's own evaluation takes ``ignore`` and ``iscrowd`` for the same."""
    annotation["iscrowd"] = 1
    del annotation["ignore"]
    return True


def _box_of_mask(annotation: dict, problem: Problem, structure: Structure) -> bool:
    rle = _rle(annotation, structure)
    box = [] if rle is None else mask_util.toBbox(rle).tolist()
    if not box or min(box[2:]) <= 0:
        return False
    annotation["bbox"] = box
    return True


def _unlabelled_keypoints(annotation: dict, problem: Problem, structure: Structure) -> bool:
    names = structure.categories[annotation["category_id"]]["keypoints"]
    annotation.update(keypoints=[0] * 3 * len(names), num_keypoints=0)
    return True


_MENDING: dict[str, _Repair] = {
    "stray-polygon": _drop_stray_polygons,
    "polygon-outside": _clip_polygons,
    "box-outside": _clip_box,
}
_REPAIRING: dict[str, _Repair] = {
    "misnamed-image": _rename,
    "ignored-object": _ignored_to_crowd,
    "bad-box": _box_of_mask,
    "degenerate-box": _box_of_mask,
    "missing-keypoints": _unlabelled_keypoints,
}


def _area(annotation: dict, structure: Structure) -> float:
    rle = _rle(annotation, structure)
    if rle is not None:
        return float(mask_util.area(rle))
    _, _, width, height = annotation["bbox"]
    return float(width * height)


def _rle(annotation: dict, structure: Structure) -> dict | None:
    """A sound mask in COCO's run lengths; None where there is none."""
    segmentation, size = annotation.get("segmentation"), _size(annotation, structure)
    if not segmentation or not size:
        return None
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return segmentation
    rles = mask_util.frPyObjects(segmentation, *size[::-1])
    return mask_util.merge(rles) if isinstance(rles, list) else rles


# ---- Lists of problems ----


def write_problems(problems: Sequence[Problem], path: str) -> None:
    """Write the list: ``{"problems": [{"file", "id", "kind", "value", "severity"}]}``."""
    write_text(path, json.dumps({"problems": [p.as_dict() for p in problems]}, indent=1))


def read_problems(path: str) -> list[Problem]:
    """What :func:`write_problems` wrote."""
    with open(path, encoding="utf-8") as f:
        found = json.load(f)["problems"]
    return [Problem(**{key: p[key] for key in ("file", "id", "kind", "value")}) for p in found]

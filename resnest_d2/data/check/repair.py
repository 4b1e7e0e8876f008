"""From a COCO file as it is to one that Detectron2 trains on.

Each problem that was found (:mod:`.kinds`) ends in one of three ways:

- *mended*: solved, and nothing is lost. Some kinds always are; others, such as a box that is
  computed from the mask, only if ``on_bad_data`` is ``"repair"`` or ``"skip"``.
- *left out*: with ``"skip"``, an entry that cannot be mended is dropped, with what depends on it.
- *refused*: an error.

Detectron2 reads a data set's JSON file twice, for its loader and for its evaluator: if entries were
changed on the way, the two would disagree. So a changed set is written as a new file, and that is
registered.
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from fvcore.transforms.transform import CropTransform
from pycocotools import mask as mask_util

from ...errors import check_choice
from ...files import write_text
from .data_sets import (
    check_data_sets,
    check_file,
    examine,
    require_paths,
)
from .kinds import BEHAVIOURS, MENDED, OF_KEYPOINTS, OF_MASKS, UNREADABLE, UNUSABLE
from .normalise import dicts, is_id, without_given_ids
from .objects import polygon_problem
from .problems import Problem, counted, errors, report
from .structure import Structure, image_size, read_structure
from .summary import CocoSummary, summarise

logger = logging.getLogger(__name__)

OF_SOME_MODELS = ("missing-mask", "missing-keypoints")
"""Kinds that do not matter where it is not known what a model learns."""


@dataclass(frozen=True)
class UsableSet:
    """The part of a data set that can be used.

    Attributes:
        content: of a COCO file; None where the file can stay as it is, or something is refused.
        summary: of the content.
        mended: problems that were solved.
        left_out: problems whose entries are left out, with what depends on them.
        refused: the other errors; with ``skip`` there are none.
        objects, lost: number of annotations, merged ones counted once, and of those left out.
        file: where :func:`fix_coco` has written the content.
    """

    json_file: str
    content: dict | None = None
    summary: CocoSummary | None = None
    mended: Sequence[Problem] = ()
    left_out: Sequence[Problem] = ()
    refused: Sequence[Problem] = ()
    objects: int = 0
    lost: int = 0
    file: str = ""

    def warn_of_losses(self) -> None:
        """Say in the log how many annotations are left out, and show some reasons."""
        if self.lost:
            logger.warning(
                f"{self.json_file}: {self.lost} of {self.objects} annotations are left out, "
                "because they, their image or their category are broken\n"
                f"{report(self.left_out, limit=3)}"
            )

    def as_dict(self) -> dict:
        """What was changed, for JSON."""
        lists = {key: [p.as_dict() for p in getattr(self, key)] for key in ("mended", "left_out")}
        return {"file": self.file, "objects": self.objects, "lost": self.lost, **lists}


def relevant(problems: Iterable[Problem], *, masks: bool, keypoints: bool) -> list[Problem]:
    """The problems that matter to a model with or without masks and keypoints."""
    ignored = (set() if masks else OF_MASKS) | (set() if keypoints else OF_KEYPOINTS)
    return [problem for problem in problems if problem.kind not in ignored]


def make_usable(
    checked: Structure,
    *,
    on_bad_data: str = "refuse",
    masks: bool = True,
    keypoints: bool = True,
    ignored: Collection[str] = (),
    iscrowd: int | None = None,
    always: bool = False,
) -> UsableSet:
    """Mend, repair or leave out what has problems. The file itself is not changed.

    ``area`` is computed where it is missing: the mask's where there is one, else the box's.

    Args:
        checked: a file that is usable as a whole. Its content is changed and released.
        masks, keypoints: whether they are learned; if not, unreadable ones are removed and the
            objects stay.
        ignored: kinds of problems to leave as they are.
        iscrowd: a value for all annotations.
        always: give the content also where nothing is changed.

    Raises:
        ValueError: no image or no category is left.
    """
    problems = [problem for problem in checked.problems if problem.kind not in ignored]
    # Values that the model does not learn are removed where Detectron2 could not load them.
    unread = (set() if masks else UNREADABLE["segmentation"]) | (
        set() if keypoints else UNREADABLE["keypoints"]
    )
    removed = [problem for problem in problems if problem.kind in unread]
    problems = relevant(problems, masks=masks, keypoints=keypoints)
    left = errors(problems)
    mended = [problem for problem in problems if problem.kind in MENDED]
    if left and on_bad_data == "refuse":
        return UsableSet(checked.json_file, refused=left)
    if not (mended or left or removed or always):
        return UsableSet(checked.json_file, summary=checked.summary)
    structure = dataclasses.replace(checked)
    if structure.data is None:
        structure = read_structure(checked.json_file)
    checked.data = None
    annotations = structure.data["annotations"]
    for problem in removed:
        is_mask = problem.kind in UNREADABLE["segmentation"]
        for key in ("segmentation",) if is_mask else ("keypoints", "num_keypoints"):
            annotations[problem.entry[1]].pop(key, None)
    broken = {problem.entry for problem in left if problem.kind in UNREADABLE["segmentation"]}
    repairable = [problem for problem in left if problem.entry not in broken]
    first = {"stray-polygon": 0, "polygon-outside": 1}  # before a box is taken from the mask
    todo = sorted([*mended, *repairable], key=lambda problem: first.get(problem.kind, 2))
    repaired = {id(problem) for problem in todo if _repair(problem, structure)}
    mended += [problem for problem in left if id(problem) in repaired]
    left = [problem for problem in left if id(problem) not in repaired]
    if left and on_bad_data == "repair":
        return UsableSet(checked.json_file, refused=left)
    spare = structure.merged | {p.entry for p in mended if p.kind == "maskless-crowd"}
    objects = sum(("annotations", index) not in spare for index in range(len(annotations)))
    kept = without_entries(structure, spare | {problem.entry for problem in left})
    lost = objects - len(kept["annotations"])
    if iscrowd is not None:
        before = len(structure.problems)
        for index, annotation in dicts(annotations):
            if annotation["iscrowd"] != iscrowd:
                structure.add("changed-iscrowd", "annotations", index, annotation["iscrowd"])
                annotation["iscrowd"] = iscrowd
        mended += structure.problems[before:]
    for annotation in kept["annotations"]:
        if "area" not in annotation:
            annotation["area"] = _area(annotation, structure)
    categories = {c["id"]: c for c in sorted(kept["categories"], key=lambda c: c["id"])}
    images = [image["id"] for image in kept["images"]]
    summary = summarise(checked.json_file, images, categories, kept["annotations"])
    if any(problem.kind == "no-annotations" for problem in mended):
        del kept["annotations"]  # evaluators take this for nothing to score
    return UsableSet(checked.json_file, kept, summary, mended, left, [], objects, lost)


def usable_part(
    json_file: str, image_root: str | os.PathLike | None, on_bad_data: str, **kwargs
) -> UsableSet:
    """Check a file, with its images where their folder is given, and :func:`make_usable`.

    Raises:
        ValueError: with all that is refused.
    """
    check_choice("on_bad_data", on_bad_data, BEHAVIOURS)
    if image_root is None:
        checked = examine(json_file) if on_bad_data == "refuse" else check_file(json_file)
    else:
        (checked,) = check_data_sets([(json_file, image_root)]).values()
    if any(problem.kind in UNUSABLE for problem in checked.problems):
        raise_errors(json_file, checked.problems)
    usable = make_usable(checked, on_bad_data=on_bad_data, **kwargs)
    raise_errors(json_file, usable.refused)
    return usable


def raise_errors(json_file: str, problems: Sequence[Problem]) -> None:
    """Raise a ValueError with all errors, if there are any."""
    if found := errors(problems):
        ways = ""
        if not any(problem.kind in UNUSABLE for problem in found):
            ways = " (on_bad_data 'repair' repairs what it can, 'skip' leaves out the rest)"
        number = counted(len(found), "problem")
        raise ValueError(f"{json_file} has {number}{ways}\n{report(found)}")


def without_entries(structure: Structure, dropped: Container[tuple[str, int]]) -> dict:
    """A file's content without entries (section, index) and the annotations that refer to them.

    Raises:
        ValueError: no image or no category is left.
    """
    kept = {
        section: [e for i, e in enumerate(structure.data[section]) if (section, i) not in dropped]
        for section in ("images", "annotations", "categories")
    }
    for section in ("images", "categories"):
        if not kept[section]:
            raise ValueError(
                f"{structure.json_file}: without the broken entries, no '{section}' are left"
            )
    known = {section: {_id(entry) for entry in kept[section]} for section in kept}
    kept["annotations"] = [
        annotation
        for annotation in kept["annotations"]
        if _id(annotation, "image_id") in known["images"]
        and _id(annotation, "category_id") in known["categories"]
    ]
    return {**structure.data, **kept}


def _id(entry: object, key: str = "id") -> int | None:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if is_id(value) else None


def write_usable(usable: UsableSet, folder: str) -> str:
    """Write changed content into a folder, under a name with its hash; return the file to use."""
    if usable.content is None:
        return usable.json_file
    text = json.dumps(usable.content)
    stem = os.path.splitext(os.path.basename(usable.json_file))[0]
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = os.path.join(folder, f"clean_{stem}_{digest}.json")
    write_text(path, text)
    return path


def _repair(problem: Problem, structure: Structure) -> bool:
    """Repair an entry in place, if possible."""
    entry = structure.data[problem.entry[0]][problem.entry[1]] if problem.entry else {}
    match problem.kind:
        case "misnamed-image":
            entry["file_name"] = problem.value["found"]
        case "ignored-object":  # COCO's own evaluation treats ``ignore`` and ``iscrowd`` alike
            entry["iscrowd"] = 1
            del entry["ignore"]
        case "missing-keypoints":
            names = structure.categories[entry["category_id"]]["keypoints"]
            entry.update(keypoints=[0] * 3 * len(names), num_keypoints=0)
        case "stray-polygon":
            size = _size(entry, structure)
            entry["segmentation"] = [
                polygon
                for polygon in entry["segmentation"]
                if polygon_problem(polygon, size)[0] in (None, "polygon-outside")
            ]
        case "polygon-outside":  # Detectron2 clips so too, with shapely
            clip = CropTransform(0, 0, *_size(entry, structure))
            polygons = [np.reshape(polygon, (-1, 2)) for polygon in entry["segmentation"]]
            if clipped := [p.flatten().tolist() for p in clip.apply_polygons(polygons)]:
                entry["segmentation"] = clipped
        case "box-outside":
            x, y, width, height = entry["bbox"]
            columns, rows = _size(entry, structure)
            left, top = max(x, 0), max(y, 0)
            right, bottom = min(x + width, columns), min(y + height, rows)
            entry["bbox"] = [left, top, right - left, bottom - top]
            if entry.get("area") == width * height:
                entry["area"] = (right - left) * (bottom - top)
        case "bad-box" | "degenerate-box":
            rle = _rle(entry, structure)
            box = [] if rle is None else mask_util.toBbox(rle).tolist()
            if not box or min(box[2:]) <= 0:
                return False
            entry["bbox"] = box
        case _:
            return False
    return True


def _size(annotation: dict, structure: Structure) -> tuple[int, int] | None:
    return image_size(structure.images.get(_id(annotation, "image_id"), {}))


def _area(annotation: dict, structure: Structure) -> float:
    rle = _rle(annotation, structure)
    if rle is not None:
        return float(mask_util.area(rle))
    return float(annotation["bbox"][2] * annotation["bbox"][3])


def _rle(annotation: dict, structure: Structure) -> dict | None:
    """A sound mask in COCO's run lengths; None where there is none."""
    segmentation, size = annotation.get("segmentation"), _size(annotation, structure)
    if not segmentation or not size:
        return None
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return segmentation
    rles = mask_util.frPyObjects(segmentation, *size[::-1])
    return mask_util.merge(rles) if isinstance(rles, list) else rles


# ---- Files ----


def fix_coco(
    json_file: str | os.PathLike,
    out: str | os.PathLike,
    *,
    image_root: str | os.PathLike | None = None,
    on_bad_data: str = "repair",
    iscrowd: int | None = None,
    masks: bool = True,
) -> UsableSet:
    """Write the usable part of a file, and beside it, as ``OUT.changes.json``, what was changed.

    An object that lacks a mask stays: a model that learns no masks can use it. Where ids had to
    become numbers, these are the new file's ids, and the list has those of the old file.

    Args:
        image_root: the folder of the images, to check these too.
        on_bad_data: ``"repair"`` refuses what cannot be repaired, ``"skip"`` leaves it out.
        iscrowd: a value for all annotations.
        masks: False removes unreadable masks, for models that learn none.

    Raises:
        FileExistsError: one of the two files exists.
        FileNotFoundError: the file or the folder does not exist.
        ValueError: with all that cannot be repaired.
    """
    check_choice("on_bad_data", on_bad_data, ("repair", "skip"))
    json_file, out = os.fspath(json_file), os.fspath(out)
    list_file = f"{out.removesuffix('.json')}.changes.json"
    if found := [path for path in (out, list_file) if os.path.exists(path)]:
        raise FileExistsError(f"{' and '.join(found)}: there already, and not overwritten")
    require_paths(json_file, os.path.dirname(json_file) or ".")
    usable = usable_part(
        json_file,
        image_root,
        on_bad_data,
        ignored=("missing-mask",),
        masks=masks,
        iscrowd=iscrowd,
        always=True,
    )
    write_text(out, json.dumps(without_given_ids(usable.content)))
    fixed = dataclasses.replace(usable, content=None, file=out)
    write_text(list_file, json.dumps(fixed.as_dict(), indent=1))
    return fixed


def write_problems(problems: Sequence[Problem], path: str) -> None:
    """Write the list: ``{"problems": [{"file", "id", "kind", "value", "severity"}]}``."""
    write_text(path, json.dumps({"problems": [p.as_dict() for p in problems]}, indent=1))


def read_problems(path: str) -> list[Problem]:
    """What :func:`write_problems` wrote."""
    with open(path, encoding="utf-8") as f:
        found = json.load(f)["problems"]
    return [Problem(**{key: p[key] for key in ("file", "id", "kind", "value")}) for p in found]

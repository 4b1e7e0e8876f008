"""COCO data sets, looked at before anything starts: all that is wrong, at once.

Detectron2 reads a JSON file when its loader is built and a picture when its turn comes, and what is
wrong there ends as a KeyError or an assertion far from the cause, or after hours. Here each file is
read once; pictures by their headers (see :mod:`.check_pictures`).
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .file_names import describe_rules, find_files
from .image_files import PictureEntry, check_pictures, shared_pictures
from .normalise import given_ids
from .objects import check_objects
from .problems import Problem, shown
from .structure import Structure, entry_id, image_size, read_structure

__all__ = [
    "CocoSummary",
    "Examined",
    "check_coco",
    "check_sets",
    "different_categories",
    "examine",
    "file_state",
    "find_pictures",
    "problems_by_set",
    "require_paths",
]


@dataclass(frozen=True)
class CocoSummary:
    """What a COCO-format file holds.

    Attributes:
        json_file: the file.
        class_names: ordered by category id, hence by Detectron2's contiguous class number.
        category_ids: ascending, one for each class name.
        given_ids: the same as the file gives them, such as texts.
        num_images: number of images.
        num_annotations: number of annotations, crowds included.
        num_crowds: of them, those with ``iscrowd`` 1, which are neither trained nor scored.
        has_masks: whether an object that is not a crowd has a segmentation.
        has_rle: whether such a segmentation is run-length encoded, which Detectron2 trains only
            with ``INPUT.MASK_FORMAT: bitmask``.
        has_keypoints: whether an annotation has keypoints.
        keypoint_names: names of the keypoints, where all categories that have some agree.
        num_keypoints: how many the objects have, where all that have some agree and no category
            names its keypoints; else 0.
        without_keypoints: number of annotations that lack ``keypoints``, without which no keypoint
            head can be trained or scored.
        image_ids: ids of the images.
    """

    json_file: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    given_ids: tuple[int | float | str, ...]
    num_images: int
    num_annotations: int
    num_crowds: int
    has_masks: bool
    has_rle: bool
    has_keypoints: bool
    keypoint_names: tuple[str, ...] = ()
    num_keypoints: int = 0
    without_keypoints: int = 0
    image_ids: frozenset[int] = frozenset()

    @property
    def num_objects(self) -> int:
        """Annotations that are trained and scored."""
        return self.num_annotations - self.num_crowds


@dataclass(frozen=True)
class Examined:
    """What is known of a JSON file.

    Attributes:
        problems: of the file, its pictures aside.
        summary: None where the file is unusable as a whole.
        pictures: the entries of its images.
    """

    problems: tuple[Problem, ...]
    summary: CocoSummary | None
    pictures: tuple[PictureEntry, ...]


def check_coco(json_file: str | os.PathLike, image_root: str | os.PathLike) -> list[Problem]:
    """All problems of a COCO-format data set: of the file, its entries and its pictures.

    Raises:
        FileNotFoundError: the file or the folder of images does not exist.
    """
    return check_sets([(json_file, image_root)])


def check_sets(*groups: Sequence[tuple[str | os.PathLike, str | os.PathLike]]) -> list[Problem]:
    """All problems of several data sets, and of groups that must not share a picture.

    Args:
        groups: (json file, image folder) pairs: of the training data, then of the validation data.
            All must have the same categories.
    """
    return [problem for found in problems_by_set(*groups).values() for problem in found]


def problems_by_set(
    *groups: Sequence[tuple[str | os.PathLike, str | os.PathLike]],
) -> dict[tuple[str, str], list[Problem]]:
    """What :func:`check_sets` finds, by the pair that it was found in."""
    plain = [[(os.fspath(j), os.fspath(root)) for j, root in group] for group in groups]
    for pair in (pair for group in plain for pair in group):
        require_paths(*pair)
    found: dict[tuple[str, str], list[Problem]] = {}
    pictures: dict[tuple[str, str], list[PictureEntry]] = {}
    for pair in (pair for group in plain for pair in group):
        if pair not in found:
            examined = examine(pair[0])
            pictures[pair], misnamed = find_pictures(*pair, examined.pictures)
            found[pair] = [*examined.problems, *misnamed, *check_pictures(*pair, pictures[pair])]
    _compare_categories(found)
    for place, first in enumerate(plain):
        for second in plain[place + 1 :]:
            _compare_pictures(found, pictures, first, second)
    return found


def find_pictures(
    json_file: str, root: str, entries: Sequence[PictureEntry]
) -> tuple[list[PictureEntry], list[Problem]]:
    """Look for files that are not there under their names (:mod:`.file_names`).

    Returns:
        The entries, with other names where files were found, and a problem for each of these.
    """
    entries = list(entries)
    names = [entry.file_name for entry in entries if entry.file_name]
    missing = [name for name in names if not _is_there(root, name)]
    if not missing:
        return entries, []
    found = find_files(missing, root, taken=set(names).difference(missing))
    rules = describe_rules(found, len(missing))
    problems = []
    for place, entry in enumerate(entries):
        if file := entry.file_name and found.get(entry.file_name):
            value = {"file_name": shown(entry.file_name), "found": file.file_name, "note": rules}
            at = ("images", entry.index)
            problems.append(Problem(json_file, entry.id, "misnamed-image", value, at))
            entries[place] = dataclasses.replace(entry, file_name=file.file_name)
    return entries, problems


def _is_there(root: str, name: str) -> bool:
    try:
        return os.path.exists(os.path.join(root, name))
    except ValueError:  # a null character or a lone surrogate
        return False


def require_paths(json_file: str, folder: str, kind: str = "image") -> None:
    """Raise a FileNotFoundError unless the file and its folder of images exist."""
    if not os.path.isfile(json_file):
        what = "is a folder, not a JSON file" if os.path.isdir(json_file) else "does not exist"
        raise FileNotFoundError(f"annotation file {json_file} {what}")
    if not os.path.isdir(folder):
        what = "is a file, not a folder" if os.path.exists(folder) else "does not exist"
        raise FileNotFoundError(f"{kind} folder {folder} (for {json_file}) {what}")


def file_state(path: str) -> tuple[int, int]:
    """What changes when a file is written anew: its time (nanoseconds) and size (bytes)."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def examine(json_file: str) -> Examined:
    """Read a JSON file, once for each state of it."""
    return _examine(json_file, file_state(json_file))


@functools.lru_cache(maxsize=8)  # checking, counting classes and registering read a file once
def _examine(json_file: str, state: tuple[int, int]) -> Examined:
    structure = read_structure(json_file)
    if structure.data is None:
        return Examined(tuple(structure.problems), None, ())
    problems = list(structure.problems)
    pictures = _pictures(json_file, structure, problems)
    problems += check_objects(json_file, structure)
    problems += _check_categories(json_file, structure)
    summary = _summarise(json_file, structure)
    if summary.num_crowds:
        value = {"crowds": summary.num_crowds, "annotations": summary.num_annotations}
        problems.append(Problem(json_file, None, "crowds", value))
    return Examined(tuple(problems), summary, tuple(pictures))


def _pictures(json_file: str, structure: Structure, problems: list[Problem]) -> list[PictureEntry]:
    """The entries of ``images``; what is wrong with their values is added to ``problems``."""
    pictures = []
    for index, image in enumerate(structure.data["images"]):
        if not isinstance(image, dict) or ("images", index) in structure.merged:
            continue
        number, entry = entry_id("images", index, image), ("images", index)
        name = image.get("file_name")
        if "file_name" in image and not (isinstance(name, str) and name.strip()):
            problems.append(Problem(json_file, number, "bad-file-name", shown(name), entry))
            name = None
        size = image_size(image)
        if size is None and "width" in image and "height" in image:
            found = {side: shown(image[side]) for side in ("width", "height")}
            problems.append(Problem(json_file, number, "bad-image-size", found, entry))
        pictures.append(PictureEntry(index, number, name, size))
    return pictures


def _check_categories(json_file: str, structure: Structure) -> list[Problem]:
    """Gaps in the ids and classes without an annotation: warnings."""
    indices = {id(entry): index for index, entry in enumerate(structure.data["categories"])}
    used = {
        annotation["category_id"]
        for annotation in structure.data["annotations"]
        if isinstance(annotation, dict) and type(annotation.get("category_id")) is int
    }
    problems = []
    before = min((*structure.categories, 1)) - 1  # ids begin at 0 or 1
    for number, category in structure.categories.items():
        entry = ("categories", indices[id(category)])
        if number > before + 1:
            gap = [before + 1, number - 1]
            problems.append(Problem(json_file, number, "category-gap", gap, entry))
        before = number
        if number not in used:
            name = category["name"]
            problems.append(Problem(json_file, number, "empty-class", shown(name), entry))
    return problems


def _summarise(json_file: str, structure: Structure) -> CocoSummary:
    categories = structure.categories
    annotations = [a for a in structure.data["annotations"] if isinstance(a, dict)]
    objects = [annotation for annotation in annotations if annotation["iscrowd"] != 1]
    segmentations = [a["segmentation"] for a in objects if a.get("segmentation")]
    counts = {len(a["keypoints"]) for a in annotations if isinstance(a.get("keypoints"), list)}
    counts.discard(0)
    keypoint_lists = {tuple(c["keypoints"]) for c in categories.values() if c.get("keypoints")}
    named = bool(keypoint_lists)
    return CocoSummary(
        json_file=json_file,
        class_names=tuple(category["name"] for category in categories.values()),
        category_ids=tuple(categories),
        given_ids=tuple(given_ids(categories).get(number, number) for number in categories),
        num_images=len(structure.images),
        num_annotations=len(structure.data["annotations"]),
        num_crowds=len(annotations) - len(objects),
        has_masks=bool(segmentations),
        has_rle=any(isinstance(segmentation, dict) for segmentation in segmentations),
        has_keypoints=any(annotation.get("keypoints") for annotation in annotations),
        keypoint_names=keypoint_lists.pop() if len(keypoint_lists) == 1 else (),
        num_keypoints=counts.pop() // 3 if len(counts) == 1 and not named else 0,
        without_keypoints=sum(not annotation.get("keypoints") for annotation in annotations),
        image_ids=frozenset(structure.images),
    )


def different_categories(ours: Mapping[Any, str], theirs: Mapping[Any, str]) -> dict[Any, str]:
    """The categories (names by id) in which two files differ, by id, as texts for a message."""
    return {
        i: f"{ours.get(i, 'absent')} / {theirs.get(i, 'absent')}"
        for i in sorted(ours.keys() | theirs.keys(), key=lambda i: (isinstance(i, str), i))
        if ours.get(i) != theirs.get(i)
    }


def _compare_categories(found: dict[tuple[str, str], list[Problem]]) -> None:
    """Detectron2 numbers classes by their sorted ids in each file: all must have the same ones."""
    summaries = [(pair, examine(pair[0]).summary) for pair in found]
    summaries = [(pair, summary) for pair, summary in summaries if summary]
    names = [dict(zip(s.given_ids, s.class_names, strict=True)) for _, s in summaries]
    for (pair, summary), theirs in zip(summaries[1:], names[1:], strict=True):
        for number, text in different_categories(names[0], theirs).items():
            value = f"{text} in {summaries[0][0][0]} / {summary.json_file}"
            found[pair].append(Problem(pair[0], number, "different-category", value))


def _compare_pictures(
    found: dict[tuple[str, str], list[Problem]],
    pictures: Mapping[tuple[str, str], Sequence[PictureEntry]],
    first: Sequence[tuple[str, str]],
    second: Sequence[tuple[str, str]],
) -> None:
    for pair in first:
        # A data set that is learned by heart on purpose is told, not refused.
        same = [other for other in second if _real(other) == _real(pair)]
        if same:
            found[pair].append(Problem(pair[0], None, "same-set", same[0][0]))
        sides = [
            [(place[1], entry) for place in pairs for entry in pictures[place]]
            for pairs in ([pair], [other for other in second if other not in same])
        ]
        for entry, path, other in shared_pictures(*sides):
            place = ("images", entry.index)
            found[pair].append(Problem(path, entry.id, "same-picture", other, place))


def _real(pair: tuple[str, str]) -> tuple[str, str]:
    return os.path.realpath(pair[0]), os.path.realpath(pair[1])

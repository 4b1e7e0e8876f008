"""All that is wrong with COCO data sets, found before anything starts and reported at once.

Detectron2 reads a JSON file when its loader is built and an image when it is used; what is wrong
there ends as a KeyError or an assertion far from the cause, or after hours. Here each JSON file is
read once, and of images the headers (see :mod:`.image_files`).
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .file_names import describe_rules, find_files
from .image_files import check_image_files, shared_images
from .normalise import dicts
from .objects import check_objects
from .problems import Problem, shown
from .structure import Structure, read_structure
from .summary import summarise

_Pair = tuple[str | os.PathLike, str | os.PathLike]  # JSON file, image folder


def check_coco(json_file: str | os.PathLike, image_root: str | os.PathLike) -> list[Problem]:
    """All problems of a COCO-format data set: of the file, its entries and its images.

    Raises:
        FileNotFoundError: the file or the folder of images does not exist.
    """
    return check_sets([(json_file, image_root)])


def check_sets(*groups: Sequence[_Pair]) -> list[Problem]:
    """All problems of several data sets, and of groups that must not share an image.

    Args:
        groups: (json file, image folder) pairs: of the training data, then of the validation data.
            All must have the same categories.
    """
    return [p for checked in check_data_sets(*groups).values() for p in checked.problems]


def check_data_sets(*groups: Sequence[_Pair]) -> dict[tuple[str, str], Structure]:
    """Check data sets as :func:`check_sets` does; what is known of each, by its pair."""
    plain = [[(os.fspath(file), os.fspath(root)) for file, root in group] for group in groups]
    pairs = dict.fromkeys(pair for group in plain for pair in group)
    for pair in pairs:
        require_paths(*pair)
    found = {}
    for json_file, root in pairs:
        found[json_file, root] = checked = check_file(json_file)
        _find_images(checked, root)
        checked.problems += check_image_files(json_file, root, checked.image_entries)
    _compare_categories([checked for checked in found.values() if checked.summary])
    for first, second in itertools.combinations(plain, 2):
        _compare_images(found, first, second)
    return found


def _find_images(checked: Structure, root: str) -> None:
    """Search missing files under other names, which their entries then get."""
    names = [entry.file_name for entry in checked.image_entries if entry.file_name]
    missing = [name for name in names if not os.path.exists(os.path.join(root, name))]
    found = find_files(missing, root, taken=set(names).difference(missing)) if missing else {}
    rules = describe_rules(found, len(missing))
    for place, entry in enumerate(checked.image_entries):
        if file := found.get(entry.file_name):
            value = {"file_name": shown(entry.file_name), "found": file.file_name, "note": rules}
            at = ("images", entry.index)
            problem = Problem(checked.json_file, entry.id, "misnamed-image", value, at)
            checked.problems.append(problem)
            checked.image_entries[place] = dataclasses.replace(entry, file_name=file.file_name)


def require_paths(json_file: str, folder: str, kind: str = "image") -> None:
    """Raise a FileNotFoundError unless the file and its folder of images exist."""
    if not os.path.isfile(json_file):
        what = "is a folder, not a JSON file" if os.path.isdir(json_file) else "does not exist"
        raise FileNotFoundError(f"annotation file {json_file} {what}")
    if not os.path.isdir(folder):
        what = "is a file, not a folder" if os.path.exists(folder) else "does not exist"
        raise FileNotFoundError(f"{kind} folder {folder} (for {json_file}) {what}")


def file_state(path: str) -> tuple[int, int]:
    """What changes when a file is written again: its time (nanoseconds) and size (bytes)."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def examine(json_file: str) -> Structure:
    """:func:`check_file`, done once for each state of a file. Do not change the result."""
    return _examine_state(json_file, file_state(json_file))


@functools.lru_cache(maxsize=8)
def _examine_state(json_file: str, state: tuple[int, int]) -> Structure:
    return check_file(json_file).without_content()


def check_file(json_file: str) -> Structure:
    """Read and check a JSON file, its images aside. Of a sound one the content is not kept."""
    structure = read_structure(json_file)
    if structure.data is None:
        return structure
    check_objects(structure)
    annotations = [annotation for _, annotation in dicts(structure.data["annotations"])]
    structure.summary = summary = summarise(
        json_file, structure.images, structure.categories, annotations
    )
    if summary.num_crowds:
        value = {"crowds": summary.num_crowds, "annotations": summary.num_annotations}
        structure.add_to_file("crowds", value)
    return structure if structure.problems else structure.without_content()


def different_categories(
    ours: Mapping[Any, str], theirs: Mapping[Any, str], files: Sequence[str]
) -> dict[Any, str]:
    """The categories (names by id) in which two files differ, by id, as texts for a message."""

    def text(names: Mapping[Any, str], number: Any, file: str) -> str:
        return f"{names[number]!r} in {file}" if number in names else f"none in {file}"

    return {
        i: f"{text(ours, i, files[0])}, {text(theirs, i, files[1])}"
        for i in sorted(ours.keys() | theirs.keys(), key=lambda i: (isinstance(i, str), i))
        if ours.get(i) != theirs.get(i)
    }


def _compare_categories(found: Sequence[Structure]) -> None:
    """Detectron2 numbers classes by their sorted ids in each file: all must have the same ones."""
    for checked in found[1:]:
        ours, theirs = found[0].summary, checked.summary
        files = (ours.json_file, theirs.json_file)
        different = different_categories(ours.given_categories, theirs.given_categories, files)
        for number, text in different.items():
            checked.problems.append(Problem(files[1], number, "different-category", text))


def _compare_images(
    found: Mapping[tuple[str, str], Structure],
    first: Sequence[tuple[str, str]],
    second: Sequence[tuple[str, str]],
) -> None:
    for pair in first:
        # The same data on both sides, to see whether it can be memorised, is allowed.
        paths = tuple(map(os.path.realpath, pair))
        same = [other for other in second if tuple(map(os.path.realpath, other)) == paths]
        if same:
            found[pair].add_to_file("same-set", same[0][0])
        sides = [
            [(place[1], entry) for place in pairs for entry in found[place].image_entries]
            for pairs in ([pair], [other for other in second if other not in same])
        ]
        for entry, path, other in shared_images(*sides):
            found[pair].problems.append(entry.problem(path, "same-picture", other))

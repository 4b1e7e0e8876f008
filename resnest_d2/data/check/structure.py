"""The structure of a COCO file: JSON, sections, entries, ids and what refers to them.

An instance file is normalised first (:mod:`.normalise`). Where its structure is sound, images,
annotations and categories can be joined; what they say is checked in :mod:`.check_objects` and
:mod:`.check_pictures`.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .kinds import MERGED
from .normalise import GIVEN_ID, normalise
from .problems import Problem, shown

__all__ = [
    "COCO_KEYS",
    "Structure",
    "entry_id",
    "image_size",
    "is_id",
    "read_sections",
    "read_structure",
]

COCO_KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id", "category_id"),
    "categories": ("id", "name"),
}
_SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}


@dataclass
class Structure:
    """A file's content, as far as it holds.

    Attributes:
        data: the normalised content; None where the file is unusable as a whole.
        problems: of the frame.
        images: usable ones by id.
        categories: usable ones by id, ascending.
        merged: section and index of entries that went into an earlier one.
    """

    data: dict | None
    problems: list[Problem]
    images: dict[int, dict] = field(default_factory=dict)
    categories: dict[int, dict] = field(default_factory=dict)
    merged: set[tuple[str, int]] = field(default_factory=set)


def is_id(value: object) -> bool:
    """Whether Detectron2 and every evaluator can take it for an id."""
    return type(value) is int and 0 <= value < 1 << 63


def image_size(image: dict) -> tuple[int, int] | None:
    """Width and height of an entry of ``images``, in pixels; None where they are none."""
    size = (image.get("width"), image.get("height"))
    return size if all(type(side) is int and 0 < side < 1 << 31 for side in size) else None


def entry_id(section: str, index: int, entry: object) -> int | float | str:
    """An entry's id in its file, or its place where it has none."""
    value = entry.get(GIVEN_ID, entry.get("id")) if isinstance(entry, dict) else None
    return shown(value) if type(value) in (int, float, str) else f"{section}[{index}]"


def read_sections(
    json_file: str, required: Mapping[str, Sequence[str]]
) -> tuple[dict | None, list[Problem]]:
    """Read a file and look for sections, for the keys of their entries, and at the ids.

    Args:
        required: the sections and the keys that each entry needs; only ``annotations`` may be
            empty. Ids are looked at where ``id`` is among the keys.

    Returns:
        The content, or None where it is unusable as a whole; the problems.
    """
    data, problems = _read_json(json_file)
    if data is not None:
        problems += _check_sections(json_file, data, required)
        if any(problem.severity == "error" for problem in problems):
            return None, problems
        for section, keys in required.items():
            problems += _check_entries(json_file, section, data[section], keys)
    return data, problems


def _read_json(json_file: str) -> tuple[dict | None, list[Problem]]:
    try:
        with open(json_file, "rb") as f:
            raw = f.read()
        encoding = json.detect_encoding(raw)
        data = json.loads(raw.decode(encoding))
    except json.JSONDecodeError as e:
        message = f"{e.msg} at line {e.lineno}, column {e.colno}"
        return None, [Problem(json_file, None, "not-json", message)]
    except UnicodeDecodeError as e:
        message = f"no {e.encoding.upper()} text at byte {e.start}"
        return None, [Problem(json_file, None, "not-json", message)]
    except (RecursionError, ValueError) as e:  # brackets without an end, an endless number
        return None, [Problem(json_file, None, "not-json", str(e))]
    if not isinstance(data, dict):
        message = f"a {type(data).__name__}"
        return None, [Problem(json_file, None, "not-an-object", message)]
    plain = encoding == "utf-8"
    return data, [] if plain else [Problem(json_file, None, "encoding", encoding)]


def _check_sections(json_file: str, data: dict, required: Iterable[str]) -> list[Problem]:
    problems = []
    for section in required:
        if section not in data:
            found = f"it has no '{section}'; it has {shown(sorted(data))}"
            problems.append(Problem(json_file, None, "missing-section", found))
        elif not isinstance(data[section], list):
            found = f"'{section}' is a {type(data[section]).__name__}"
            problems.append(Problem(json_file, None, "bad-section", found))
        elif not data[section] and section != "annotations":
            problems.append(Problem(json_file, None, "empty-section", f"'{section}' is empty"))
    return problems


def _check_entries(
    json_file: str,
    section: str,
    entries: list,
    keys: Sequence[str],
    merged: Collection[tuple[str, int]] = (),
) -> list[Problem]:
    singular = _SINGULAR[section]
    problems = []

    def add(kind: str, index: int, value: object) -> None:
        name = entry_id(section, index, entries[index])
        problems.append(Problem(json_file, name, kind, shown(value), (section, index)))

    seen: dict[int, int] = {}
    repeated: dict[int, int] = {}  # index by index of the first with this id
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            add(f"bad-{singular}", index, f"{section}[{index}] is a {type(entry).__name__}")
            continue
        for key in keys:
            if key not in entry:
                add(f"{singular}-lacks-key", index, f"{section}[{index}] has no '{key}'")
        if "id" not in keys or "id" not in entry or (section, index) in merged:
            continue
        number = entry["id"]
        if not is_id(number):
            add(f"bad-{singular}-id", index, number)
        elif number in seen:
            repeated[index] = seen[number]
        else:
            seen[number] = index
    if section == "images":  # the first one is as doubtful as the others
        repeated.update({first: first for first in set(repeated.values())})
    for index, first in sorted(repeated.items()):
        value = entries[index].get("file_name", entries[index].get("name"))
        if value is None:
            value = f"{section}[{first}] and {section}[{index}]"
        add(f"duplicate-{singular}-id", index, value)
    return problems


def read_structure(json_file: str) -> Structure:
    """Read a COCO instance file, normalise it and join its parts."""
    data, problems = _read_json(json_file)
    if data is None:
        return Structure(None, problems)
    if data.get("annotations") is None:
        problems.append(Problem(json_file, None, "no-annotations", None))
        data["annotations"] = []
    problems += _check_sections(json_file, data, COCO_KEYS)
    if any(problem.severity == "error" for problem in problems):
        return Structure(None, problems)

    def add(kind: str, section: str, index: int, value: object) -> None:
        name, place = entry_id(section, index, data[section][index]), (section, index)
        problems.append(Problem(json_file, name, kind, value, place))

    normalise(data, add)
    merged = {problem.entry for problem in problems if problem.kind in MERGED}
    for section, keys in COCO_KEYS.items():
        problems += _check_entries(json_file, section, data[section], keys, merged)
    unusable = merged | {problem.entry for problem in problems if problem.severity == "error"}
    usable = {
        section: {
            entry["id"]: entry
            for index, entry in enumerate(data[section])
            if (section, index) not in unusable
        }
        for section in ("images", "categories")
    }
    structure = Structure(data, problems, usable["images"], usable["categories"], merged)
    _check_names(json_file, structure)
    structure.categories = dict(sorted(structure.categories.items()))
    for section, entries in (("images", structure.images), ("categories", structure.categories)):
        if not entries:
            message = f"none of '{section}' is usable"
            problems.append(Problem(json_file, None, "empty-section", message))
    _check_references(json_file, structure)
    return structure


def _check_names(json_file: str, structure: Structure) -> None:
    """Look at the categories' names, and forget categories without a usable one."""
    names = Counter()
    for index, category in enumerate(structure.data["categories"]):
        if not isinstance(category, dict) or "name" not in category:
            continue
        name, given = category["name"], entry_id("categories", index, category)
        entry, number = ("categories", index), category.get("id")
        usable = is_id(number) and structure.categories.get(number) is category
        kinds = []
        if not isinstance(name, str) or not name.strip():
            kinds.append(("bad-category-name", name))
        elif usable and names[name]:
            kinds.append(("duplicate-category-name", name))
        if usable and isinstance(name, str):
            names[name] += 1
        keypoints = category.get("keypoints")
        if keypoints and not (
            isinstance(keypoints, list) and all(isinstance(k, str) for k in keypoints)
        ):
            kinds.append(("bad-keypoint-names", category.pop("keypoints")))
        found = [Problem(json_file, given, kind, shown(value), entry) for kind, value in kinds]
        structure.problems += found
        if usable and found and found[0].kind == "bad-category-name":
            structure.categories.pop(number)


def _check_references(json_file: str, structure: Structure) -> None:
    """Look for annotations of images and categories that are in the file in no form."""
    known = {
        section: {
            e["id"] for e in structure.data[section] if isinstance(e, dict) and is_id(e.get("id"))
        }
        for section in ("images", "categories")
    }
    targets = (("images", "unknown-image"), ("categories", "unknown-category"))
    for index, annotation in enumerate(structure.data["annotations"]):
        if not isinstance(annotation, dict):
            continue
        for section, kind in targets:
            key = f"{_SINGULAR[section]}_id"
            if key in annotation:
                number = annotation[key]
                if type(number) is not int or number not in known[section]:
                    name, entry = entry_id("annotations", index, annotation), ("annotations", index)
                    found = Problem(json_file, name, kind, shown(number), entry)
                    structure.problems.append(found)

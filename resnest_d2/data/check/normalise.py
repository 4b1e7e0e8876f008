"""COCO files as converters write them, brought into the form that Detectron2 and pycocotools take.

Only what loses nothing is done here: ids become natural numbers, references follow them, whole
numbers of another type become integers, derived values are computed, and equal rows are merged.
Each change is a warning (:data:`.kinds.MENDED`).

An entry whose id changes keeps the file's id under :data:`GIVEN_ID`, for results and messages.
"""

import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

GIVEN_ID = "resnest_d2_given_id"
"""The key of an entry for its id in the file, where that was replaced."""

_Add = Callable[[str, str, int, object], None]  # kind, section, index, value


def without_given_ids(content: dict) -> dict:
    """A file's content without the ids that were replaced."""
    for section in ("images", "annotations", "categories"):
        for entry in content.get(section, ()):
            entry.pop(GIVEN_ID, None)
    return content


def given_ids(entries: Mapping[int, dict]) -> dict[int, Any]:
    """The file's ids, where they were replaced, by the new ones."""
    return {
        number: entry[GIVEN_ID]
        for number, entry in entries.items()
        if isinstance(entry.get(GIVEN_ID), (int, float, str))  # another type is not ours
    }


def is_finite_list(values: object) -> bool:
    """Whether it is a list of finite numbers."""
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float}:
        return False
    try:
        return math.isfinite(sum(values)) or all(map(math.isfinite, values))
    except OverflowError:
        return False


def is_id(value: object) -> bool:
    """Whether Detectron2 and every evaluator can take it for an id."""
    return type(value) is int and 0 <= value < 1 << 63


def id_key(value: Any) -> Any:
    """An id as a key of a dictionary: any number of integers beyond 64 bits can have one hash."""
    return str(value) if type(value) is int and abs(value) >= 1 << 64 else value


def dicts(entries: list) -> Iterator[tuple[int, dict]]:
    """The entries that are objects, with their indices."""
    return ((index, entry) for index, entry in enumerate(entries) if isinstance(entry, dict))


def normalise(data: dict, add: _Add) -> None:
    """Change a file's content in place and report each change with ``add``.

    Entries keep their places; merged ones are reported and stay. What cannot be converted is left
    for the checks to find.
    """
    for index, image in dicts(data["images"]):
        for side in ("width", "height"):
            _convert_number(image, side, "images", index, add)
    images = _Ids(data["images"], "images", add)
    images.merge("merged-image", _file_and_size, add)
    categories = _Ids(data["categories"], "categories", add)
    categories.merge("merged-category", _id_and_name, add)
    for index, category in dicts(data["categories"]):
        if type(category.get("name")) in (int, float):
            add("converted-name", "categories", index, category["name"])
            category["name"] = str(category["name"])
    used: dict[int, dict] = {}
    without_id = []
    for index, annotation in dicts(data["annotations"]):
        images.resolve(annotation, "image_id", index, add)
        categories.resolve(annotation, "category_id", index, add)
        _normalise_values(annotation, index, add)
        number = annotation.get("id")
        if not is_id(number) or number == 0:
            without_id.append((index, annotation))
        elif number not in used:
            used[number] = annotation
        elif used[number] == annotation:
            add("merged-annotation", "annotations", index, number)
        else:
            without_id.append((index, annotation))
    free = (number for number in itertools.count(1) if number not in used)
    for (index, annotation), number in zip(without_id, free, strict=False):
        given = annotation.get("id")
        add("renumbered-annotation", "annotations", index, given)
        if given is not None:
            annotation.setdefault(GIVEN_ID, given)
        annotation["id"] = number


def _whole_number(value: object) -> int | None:
    """The integer that a number or a text stands for; None where it stands for none."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}(\.0*)?", value.strip()):
        return int(value.partition(".")[0])
    return None


def _convert_number(entry: dict, key: str, section: str, index: int, add: _Add) -> None:
    value = entry.get(key)
    if type(value) is int:
        return
    number = int(value) if type(value) is bool else _whole_number(value)
    if number is not None:
        add("converted-number", section, index, {key: value})
        entry[key] = number


def _file_and_size(image: dict) -> tuple | None:
    name, size = image.get("file_name"), (image.get("width"), image.get("height"))
    if isinstance(name, str) and all(type(side) is int and is_id(abs(side)) for side in size):
        return os.path.normpath(name.replace("\\", "/")), *size
    return None


def _id_and_name(category: dict) -> tuple | None:
    name = category.get("name")
    return (category["id"], name) if isinstance(name, str) else None


class _Ids:
    """Replaces the ids of a section's entries, and the references to them, by natural numbers.

    For example, the ids 3, "17" and "b" become 3, 17 and 18, the next free number. A reference to
    17, 17.0 or "17" finds the second entry.
    """

    def __init__(self, entries: list, section: str, add: _Add):
        self._section = section
        self._entries = [(index, entry) for index, entry in dicts(entries) if _has_id(entry)]
        given = {id_key(entry["id"]): entry["id"] for _, entry in reversed(self._entries)}
        numbers = {value: value for value in given.values() if is_id(value)}
        taken, others = set(numbers), []
        for key in sorted(given.keys() - taken, key=lambda k: (_id_text(given[k]), str(given[k]))):
            number = _whole_number(given[key])
            if is_id(number) and number not in taken:  # "17" is 17
                numbers[key] = number
                taken.add(number)
            else:
                others.append(key)
        numbers.update(zip(others, itertools.count(max(taken, default=0) + 1)))
        self._numbers: dict[Any, int] = numbers
        self._taken = set(numbers.values())
        self._by_text: dict[str, int | None] = {}  # None where several ids have this text
        for key, number in numbers.items():
            text = _id_text(given[key])
            self._by_text[text] = None if text in self._by_text else number
        for index, entry in self._entries:
            value, number = entry["id"], numbers[id_key(entry["id"])]
            if type(value) is not int or value != number:
                entry["id"] = number
                entry.setdefault(GIVEN_ID, value)
                add("converted-id", section, index, {"given": value, "now": number})

    def merge(self, kind: str, key: Callable[[dict], Any], add: _Add) -> None:
        """Merge entries that stand twice in the file: references lead to the first of them.

        Args:
            kind: of the problem to report.
            key: equal for entries to merge; None for an entry that is never merged. An entry whose
                id is also that of an entry with another key is not merged either.
        """
        keys: dict[int, set] = {}
        for _, entry in self._entries:
            keys.setdefault(entry["id"], set()).add(key(entry))
        first: dict[Any, int] = {}
        same: dict[int, int] = {}
        for index, entry in self._entries:
            number, value = entry["id"], key(entry)
            if value is None or len(keys[number]) > 1:
                continue
            if value in first:
                same[number] = first[value]
                add(kind, self._section, index, entry.get("file_name", entry.get("name")))
            first.setdefault(value, number)
        self._numbers = {value: same.get(n, n) for value, n in self._numbers.items()}
        self._by_text = {text: same.get(n, n) for text, n in self._by_text.items()}

    def resolve(self, annotation: dict, key: str, index: int, add: _Add) -> None:
        """Replace a reference, if there is one, by the number of the entry that it refers to."""
        value = annotation.get(key)
        if type(value) not in (int, float, str):
            return
        number = self._numbers.get(id_key(value))
        converted = type(value) is float
        if number is None:
            number = self._by_text.get(_id_text(value))
            converted = number is not None
            if number is None:
                if value not in self._taken:
                    return
                number = str(value)  # the number is that of another entry now
        if converted:
            add("converted-reference", "annotations", index, {key: value})
        annotation[key] = number


def _has_id(entry: dict) -> bool:
    value = entry.get("id")
    return type(value) in (int, str) or (type(value) is float and math.isfinite(value))


def _id_text(value: int | float | str) -> str:
    """A text that is the same for equal ids of different types."""
    number = _whole_number(value)
    return str(value).strip() if number is None else str(number)


def _normalise_values(annotation: dict, index: int, add: _Add) -> None:
    def found(kind: str, value: object) -> None:
        add(kind, "annotations", index, value)

    area = annotation.get("area")
    if type(area) not in (int, float) or not 0 <= area < math.inf:
        found("missing-area" if area is None else "bad-area", area)
        annotation.pop("area", None)  # computed where the file is written
    if annotation.get("iscrowd") is None:
        found("missing-iscrowd", None)
        annotation["iscrowd"] = 0
    else:
        _convert_number(annotation, "iscrowd", "annotations", index, add)
    keypoints = annotation.get("keypoints")
    if keypoints and is_finite_list(keypoints):
        seen = sum(visibility > 0 for visibility in keypoints[2::3])
        if annotation.get("num_keypoints") != seen:
            found("num-keypoints", {"num_keypoints": annotation.get("num_keypoints")})
            annotation["num_keypoints"] = seen
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        for key in ("size", "counts"):
            values = segmentation.get(key)
            if is_finite_list(values) and float in map(type, values):
                if all(float(value).is_integer() for value in values):
                    found("converted-number", {f"segmentation.{key}": values})
                    segmentation[key] = list(map(int, values))
    elif segmentation and is_finite_list(segmentation):
        found("flat-segmentation", segmentation)
        annotation["segmentation"] = [segmentation]

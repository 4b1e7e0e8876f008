"""The structure of a COCO file: JSON, sections, entries, ids and what refers to them.

An instance file is normalised first (:mod:`.normalise`). Where its structure is sound, images,
annotations and categories can be joined; their values are checked in :mod:`.objects` and
:mod:`.image_files`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .image_files import ImageEntry
from .kinds import MERGED
from .normalise import GIVEN_ID, dicts, is_id, normalise
from .problems import SINGULAR, Problem, errors, shown
from .summary import CocoSummary

_COCO_KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id", "category_id"),
    "categories": ("id", "name"),
}


@dataclass
class Structure:
    """A file's content and what is known of it.

    Attributes:
        data: the content; None where the file is unusable as a whole, or is to be read again.
        problems: of the file, and of its images where they are checked too.
        images, categories: usable ones by id, categories ascending.
        merged: section and index of entries that are taken together with an earlier one.
        image_entries: what has to be checked of the images.
        summary: None where the file is unusable as a whole.
    """

    json_file: str
    data: dict | None = None
    problems: list[Problem] = field(default_factory=list)
    images: dict[int, dict] = field(default_factory=dict)
    categories: dict[int, dict] = field(default_factory=dict)
    merged: set[tuple[str, int]] = field(default_factory=set)
    image_entries: list[ImageEntry] = field(default_factory=list)
    summary: CocoSummary | None = None

    def name(self, section: str, index: int) -> int | float | str:
        """An entry's id in the file, or its place where it has none."""
        entry = self.data[section][index]
        name = entry.get(GIVEN_ID, entry.get("id")) if isinstance(entry, dict) else None
        return shown(name) if type(name) in (int, float, str) else f"{section}[{index}]"

    def add(self, kind: str, section: str, index: int, value: object) -> None:
        """Add a problem of an entry."""
        name, entry = self.name(section, index), (section, index)
        self.problems.append(Problem(self.json_file, name, kind, shown(value), entry))

    def add_to_file(self, kind: str, value: object) -> None:
        """Add a problem of the file as a whole."""
        self.problems.append(Problem(self.json_file, None, kind, value))

    def without_content(self) -> "Structure":
        """The same without what takes memory."""
        return Structure(
            self.json_file,
            problems=self.problems,
            image_entries=self.image_entries,
            summary=self.summary,
        )


def image_size(image: dict) -> tuple[int, int] | None:
    """Width and height of an entry of ``images``, in pixels; None where they are invalid."""
    size = (image.get("width"), image.get("height"))
    return size if all(type(side) is int and 0 < side < 1 << 31 for side in size) else None


def read_sections(
    json_file: str, required: Mapping[str, Sequence[str]], *, normalised: bool = False
) -> Structure:
    """Read a file and check its sections, the keys of their entries, and the ids.

    Args:
        required: the sections (only ``annotations`` may be empty) and the keys of their entries.
            Ids are checked where ``id`` is among these.
        normalised: whether this is an instance file, to be normalised.
    """
    structure = Structure(json_file)
    data = _read_json(structure)
    if data is None:
        return structure
    if normalised and data.get("annotations") is None:
        structure.add_to_file("no-annotations", None)
        data["annotations"] = []
    for section in required:
        if section not in data:
            found = f"it has no '{section}'; it has {shown(sorted(data))}"
            structure.add_to_file("missing-section", found)
        elif not isinstance(data[section], list):
            found = f"'{section}' is a {type(data[section]).__name__}"
            structure.add_to_file("bad-section", found)
        elif not data[section] and section != "annotations":
            structure.add_to_file("empty-section", f"'{section}' is empty")
    if errors(structure.problems):
        return structure
    structure.data = data
    if normalised:
        normalise(data, structure.add)
        structure.merged = {p.entry for p in structure.problems if p.kind in MERGED}
    for section, keys in required.items():
        _check_entries(structure, section, keys)
    return structure


def _read_json(structure: Structure) -> dict | None:
    try:
        with open(structure.json_file, "rb") as f:
            raw = f.read()
        encoding = json.detect_encoding(raw)
        data = json.loads(raw.decode(encoding))
    except json.JSONDecodeError as e:
        return structure.add_to_file("not-json", f"{e.msg} at line {e.lineno}, column {e.colno}")
    except UnicodeDecodeError as e:
        return structure.add_to_file("not-json", f"no {e.encoding.upper()} text at byte {e.start}")
    except (RecursionError, ValueError) as e:  # brackets without an end, an endless number
        return structure.add_to_file("not-json", str(e))
    if not isinstance(data, dict):
        return structure.add_to_file("not-an-object", f"a {type(data).__name__}")
    if encoding != "utf-8":
        structure.add_to_file("encoding", encoding)
    return data


def _check_entries(structure: Structure, section: str, keys: Sequence[str]) -> None:
    singular, entries = SINGULAR[section], structure.data[section]
    seen: dict[int, int] = {}
    repeated: dict[int, int] = {}  # index by index of the first with this id
    for index, entry in enumerate(entries):
        where = f"{section}[{index}]"
        if not isinstance(entry, dict):
            structure.add(f"bad-{singular}", section, index, f"{where} is a {type(entry).__name__}")
            continue
        for key in keys:
            if key not in entry:
                structure.add(f"{singular}-lacks-key", section, index, f"{where} has no '{key}'")
        if "id" not in keys or "id" not in entry or (section, index) in structure.merged:
            continue
        number = entry["id"]
        if not is_id(number):
            structure.add(f"bad-{singular}-id", section, index, number)
        elif seen.setdefault(number, index) != index:
            repeated[index] = seen[number]
    if section == "images":  # the first one is as doubtful as the others
        repeated.update({first: first for first in set(repeated.values())})
    for index, first in sorted(repeated.items()):
        value = entries[index].get("file_name", entries[index].get("name"))
        if value is None:
            value = f"{section}[{first}] and {section}[{index}]"
        structure.add(f"duplicate-{singular}-id", section, index, value)


def read_structure(json_file: str) -> Structure:
    """Read a COCO instance file, normalise it and join its parts."""
    structure = read_sections(json_file, _COCO_KEYS, normalised=True)
    if structure.data is None:
        return structure
    unusable = structure.merged | {problem.entry for problem in errors(structure.problems)}
    structure.images, categories = (
        {
            entry["id"]: entry
            for index, entry in enumerate(structure.data[section])
            if (section, index) not in unusable
        }
        for section in ("images", "categories")
    )
    structure.categories = dict(sorted(categories.items()))
    _check_categories(structure)
    for section in ("images", "categories"):
        if not getattr(structure, section):
            structure.add_to_file("empty-section", f"none of '{section}' is usable")
    _check_references(structure)
    _check_images(structure)
    return structure


def _check_images(structure: Structure) -> None:
    """Check the values of ``images``, and collect what is to be checked of the files."""
    for index, image in dicts(structure.data["images"]):
        if ("images", index) in structure.merged:
            continue
        name = image.get("file_name")
        if "file_name" in image and not (isinstance(name, str) and name.strip()):
            structure.add("bad-file-name", "images", index, name)
            name = None
        size = image_size(image)
        if size is None and "width" in image and "height" in image:
            found = {side: image[side] for side in ("width", "height")}
            structure.add("bad-image-size", "images", index, found)
        entry = ImageEntry(index, structure.name("images", index), name, size)
        structure.image_entries.append(entry)


def _check_categories(structure: Structure) -> None:
    """Check names (categories without one are not usable), keypoint names and ids."""
    names: set[str] = set()
    indices: dict[int, int] = {}  # of usable ones, by id
    for index, category in dicts(structure.data["categories"]):
        if "name" not in category:
            continue
        number, name = category.get("id"), category["name"]
        usable = is_id(number) and structure.categories.get(number) is category
        if not isinstance(name, str) or not name.strip():
            structure.add("bad-category-name", "categories", index, name)
            if usable:
                del structure.categories[number]
        elif usable:
            indices[number] = index
            if name in names:
                structure.add("duplicate-category-name", "categories", index, name)
            names.add(name)
        keypoints = category.get("keypoints")
        is_list = isinstance(keypoints, list) and all(isinstance(k, str) for k in keypoints)
        if keypoints and not is_list:
            structure.add("bad-keypoint-names", "categories", index, category.pop("keypoints"))
    numbers = (a.get("category_id") for _, a in dicts(structure.data["annotations"]))
    used = {number for number in numbers if is_id(number)}
    before = min((*indices, 1)) - 1  # ids begin at 0 or 1
    for number, index in sorted(indices.items()):
        if number > before + 1:
            structure.add("category-gap", "categories", index, [before + 1, number - 1])
        before = number
        if number not in used:
            name = structure.data["categories"][index]["name"]
            structure.add("empty-class", "categories", index, name)


def _check_references(structure: Structure) -> None:
    """Find annotations of images and categories that are nowhere in the file."""
    targets = [
        (key, kind, {e["id"] for _, e in dicts(structure.data[section]) if is_id(e.get("id"))})
        for section, key, kind in (
            ("images", "image_id", "unknown-image"),
            ("categories", "category_id", "unknown-category"),
        )
    ]
    for index, annotation in dicts(structure.data["annotations"]):
        for key, kind, known in targets:
            if key in annotation and not (is_id(annotation[key]) and annotation[key] in known):
                structure.add(kind, "annotations", index, annotation[key])

"""COCO-format data sets: look before training, then register with Detectron2.

Detectron2 reads a JSON file when its loader is built, and what is wrong there ends as a KeyError
or an assertion far from the cause, or after minutes of loading. The checks here read the file once
and name the file, the entry and what it lacks. Loading itself stays Detectron2's
(``register_coco_instances``, ``load_coco_json``): one label order, sorted by category id.
"""

import difflib
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

_OWN_FILES = "--train-json/--train-images/--val-json/--val-images"
# Where Detectron2's metadata keeps a data set's paths, and what lies in those that are folders.
_METADATA_FILES = {
    "json_file": "",
    "image_root": "*.jpg",
    "panoptic_json": "",
    "panoptic_root": "*.png",
    "sem_seg_root": "*.png",
}
_STUFF_MASKS = (
    "; for panoptic ones call resnest_d2.data.register_coco_panoptic. A panoptic_stuff_… folder is "
    "not downloaded: resnest_d2.data.write_stuff_masks(panoptic_json, panoptic_root, sem_seg_root) "
    "makes it"
)
_REQUIRED = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


@dataclass(frozen=True)
class CocoSummary:
    """What a COCO-format file holds.

    Attributes:
        json_file: the file.
        class_names: ordered by category id, hence by Detectron2's contiguous class number.
        category_ids: ascending, one for each class name.
        num_images: number of images.
        num_annotations: number of annotations, crowds included.
        has_masks: whether an object that is not a crowd has a segmentation.
        has_rle: whether such a segmentation is run-length encoded, which Detectron2 trains only
            with ``INPUT.MASK_FORMAT: bitmask``.
        has_keypoints: whether an annotation has keypoints.
        keypoint_names: names of the keypoints, where all categories that have some agree.
        without_keypoints: number of annotations that lack ``keypoints`` or ``num_keypoints``. COCO
            asks for both, and no keypoint head can be trained or scored with one of them missing.
        image_ids: ids of the images.
    """

    json_file: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    num_images: int
    num_annotations: int
    has_masks: bool
    has_rle: bool
    has_keypoints: bool
    keypoint_names: tuple[str, ...] = ()
    without_keypoints: int = 0
    image_ids: frozenset[int] = frozenset()


def check_coco_json(json_file: str | os.PathLike, image_root: str | os.PathLike) -> CocoSummary:
    """Read a COCO-format file and check that Detectron2 can load it with these images.

    Raises:
        FileNotFoundError: the file, the folder or images in it are missing.
        ValueError: the file is no COCO instance file, or refers to what it does not contain.
    """
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    require_paths(json_file, image_root)
    return _summarise(json_file, image_root, file_state(json_file))


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


@functools.lru_cache(maxsize=8)  # checking, counting classes and registering read a file once
def _summarise(json_file: str, image_root: str, state: tuple[int, int]) -> CocoSummary:
    data = read_coco_json(json_file, _REQUIRED)
    images, annotations, categories = (data[section] for section in _REQUIRED)

    category_by_id = {category["id"]: category for category in categories}
    image_ids = {image["id"] for image in images}
    for kind, known in (("category", category_by_id), ("image", image_ids)):
        for annotation in annotations:
            if (unknown := annotation[f"{kind}_id"]) not in known:
                raise ValueError(
                    f"{json_file}: annotation {annotation['id']} names {kind} {unknown}, "
                    f"which is not in the file"
                )
    for annotation in annotations:
        values, names = (
            d.get("keypoints") for d in (annotation, category_by_id[annotation["category_id"]])
        )
        if values and names and len(values) != 3 * len(names):
            raise ValueError(
                f"{json_file}: annotation {annotation['id']} must have {3 * len(names)} values in "
                f"'keypoints' (x, y, v for each name of its category), got {len(values)}"
            )
    require_images([image["file_name"] for image in images], json_file, image_root)

    segmentations = [
        annotation["segmentation"]
        for annotation in annotations
        if annotation.get("segmentation") and not annotation.get("iscrowd", 0)
    ]
    ids = sorted(category_by_id)
    keypoint_lists = {tuple(c["keypoints"]) for c in categories if c.get("keypoints")}
    return CocoSummary(
        json_file=json_file,
        class_names=tuple(category_by_id[i]["name"] for i in ids),
        category_ids=tuple(ids),
        num_images=len(images),
        num_annotations=len(annotations),
        has_masks=bool(segmentations),
        has_rle=any(isinstance(segmentation, dict) for segmentation in segmentations),
        has_keypoints=any(annotation.get("keypoints") for annotation in annotations),
        keypoint_names=keypoint_lists.pop() if len(keypoint_lists) == 1 else (),
        without_keypoints=sum(
            not annotation.get("keypoints") or "num_keypoints" not in annotation
            for annotation in annotations
        ),
        image_ids=frozenset(image_ids),
    )


def require_images(names: Sequence[str], json_file: str, folder: str) -> None:
    """Raise a FileNotFoundError unless all these files are in the folder."""
    missing = [name for name in names if not os.path.exists(os.path.join(folder, name))]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(names)} images of {json_file} are not in {folder}: "
            f"{few(missing)}"
        )


def read_coco_json(json_file: str, required: Mapping[str, Sequence[str]]) -> dict[str, list[dict]]:
    """A COCO file's content, once it has the required sections and keys of their entries.

    Only ``annotations`` may be empty, and no two categories share an id.
    """
    try:
        with open(json_file, encoding="utf-8") as f:
            data = json.load(f)
    except json.JSONDecodeError as e:
        raise ValueError(
            f"{json_file} is not JSON: {e.msg} at line {e.lineno}, column {e.colno}"
        ) from e
    except UnicodeDecodeError as e:
        raise ValueError(f"{json_file} is not JSON: no UTF-8 text at byte {e.start}") from e
    if not isinstance(data, dict):
        raise ValueError(
            f"{json_file} must hold an object with {', '.join(required)}, "
            f"got a {type(data).__name__}"
        )
    for section, keys in required.items():
        if section not in data:
            raise ValueError(f"{json_file} has no '{section}'; it has {sorted(data)}")
        entries = data[section]
        if not isinstance(entries, list):
            raise ValueError(
                f"{json_file}: '{section}' must be a list, got a {type(entries).__name__}"
            )
        if not entries and section != "annotations":
            raise ValueError(f"{json_file}: '{section}' is empty")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise ValueError(
                    f"{json_file}: {section}[{number}] must be an object, "
                    f"got a {type(entry).__name__}"
                )
            for key in keys:
                if key not in entry:
                    raise ValueError(f"{json_file}: {section}[{number}] has no '{key}'")
    if len({category["id"] for category in data["categories"]}) < len(data["categories"]):
        raise ValueError(f"{json_file}: two categories share one id")
    return data


def register_coco(
    json_file: str | os.PathLike, image_root: str | os.PathLike, *, name: str | None = None
) -> str:
    """Check a COCO-format data set and register it with Detectron2.

    Args:
        json_file, image_root: the annotations, and the folder that their file names start from.
        name: by default one that belongs to this pair of paths, the same in every process.

    Returns:
        The name, for ``DATASETS.TRAIN`` or ``DATASETS.TEST``. Registering a pair again is harmless.
    """
    summary = check_coco_json(json_file, image_root)
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    files = {"json_file": json_file, "image_root": image_root}
    name = name or name_of_files("coco", files)
    if is_registered(name, files, list(summary.class_names)):
        return name

    # Detectron2 sets the first two again on loading, as lists and with the same values.
    metadata = {
        "thing_classes": list(summary.class_names),
        "thing_dataset_id_to_contiguous_id": {c: i for i, c in enumerate(summary.category_ids)},
    }
    if names := summary.keypoint_names:
        mirrored = [(left, left.replace("left", "right")) for left in names if "left" in left]
        metadata["keypoint_names"] = list(names)
        metadata["keypoint_flip_map"] = [
            (left, right) for left, right in mirrored if right in names
        ]
    register_coco_instances(name, metadata, json_file, image_root)
    return name


def name_of_files(prefix: str, files: Mapping[str, str]) -> str:
    """A name that belongs to these paths, the first of them a JSON file, in every process."""
    stem = os.path.splitext(os.path.basename(next(iter(files.values()))))[0]
    paths = "\0".join(os.path.realpath(path) for path in files.values())
    return f"{prefix}_{stem}_{hashlib.sha256(paths.encode()).hexdigest()[:8]}"


def is_registered(name: str, files: Mapping[str, str], thing_classes: list[str]) -> bool:
    """Whether the name stands for these files already; a ValueError if it stands for others.

    Args:
        files: metadata keys and paths.
    """
    if name not in DatasetCatalog:
        return False
    metadata = MetadataCatalog.get(name)
    known = {key: metadata.get(key) for key in files}
    if any(not known[key] or not _same_path(known[key], path) for key, path in files.items()):
        raise ValueError(
            f"data set name {name!r} is taken (by {' and '.join(map(str, known.values()))}): "
            f"choose another for {' and '.join(files.values())}"
        )
    if metadata.get("thing_classes", thing_classes) != thing_classes:
        raise ValueError(
            f"{next(iter(files.values()))} changed its classes since it was registered as "
            f"{name!r}: start a new process"
        )
    return True


def _same_path(first: str, second: str) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def check_same_classes(train: CocoSummary, val: CocoSummary) -> None:
    """Raise a ValueError unless both files have the same categories under the same ids.

    Detectron2 numbers the classes by their sorted ids in each file: were one missing from the
    validation file, all later ones would be scored against their neighbour.
    """
    ours, theirs = (dict(zip(s.category_ids, s.class_names, strict=True)) for s in (train, val))
    if different := different_categories(ours, theirs):
        raise ValueError(
            f"the categories of {train.json_file} (training) and {val.json_file} (validation) "
            f"differ: {few(different)}"
        )


def different_categories(ours: Mapping[int, str], theirs: Mapping[int, str]) -> list[str]:
    """The categories (names by id) in which two files differ, as texts for a message."""
    return [
        f"id {i}: {ours.get(i, 'absent')} / {theirs.get(i, 'absent')}"
        for i in sorted(ours.keys() | theirs.keys())
        if ours.get(i) != theirs.get(i)
    ]


def require_registered(names: Iterable[str]) -> None:
    """Check that Detectron2 knows these data sets and that the files of each one exist.

    Raises:
        KeyError: a name is not registered.
        FileNotFoundError: files are missing; the message shows the tree that is expected.
    """
    absent, expected = [], []
    for name in names:
        if name not in DatasetCatalog:
            near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0.4)
            hint = f" Near: {', '.join(near)}." if near else ""
            raise KeyError(
                f"no data set is registered as {name!r}.{hint} For files of your own pass "
                f"{_OWN_FILES}"
            )
        metadata = MetadataCatalog.get(name)
        files = {key: metadata.get(key) for key in _METADATA_FILES}
        files = {key: path for key, path in files.items() if path and "://" not in path}
        if not all(os.path.exists(path) for path in files.values()):
            absent.append(name)
            expected += [os.path.join(path, _METADATA_FILES[key]) for key, path in files.items()]
    if absent:
        root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
        paths = (path.rstrip(os.sep) for path in dict.fromkeys(expected))
        tree = "\n".join(f"  {path}" for path in paths)
        masks = any(MetadataCatalog.get(name).get("sem_seg_root") for name in absent)
        stuff = _STUFF_MASKS if masks else ""
        raise FileNotFoundError(
            f"the files of {', '.join(absent)} are missing. Detectron2 expects\n{tree}\n"
            f"Its own data sets lie under $DETECTRON2_DATASETS (now {root}). "
            f"For files of your own pass {_OWN_FILES}{stuff}"
        )


def few(items: Sequence, limit: int = 3) -> str:
    """The first items and how many more there are, for a message."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(map(str, items[:limit])) + more

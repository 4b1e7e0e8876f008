"""COCO-format data sets: registered with Detectron2 once they are checked and usable.

Problems are found and solved in :mod:`..check`. Loading itself stays Detectron2's
(``register_coco_instances``, ``load_coco_json``): one label order, sorted by category id.
"""

import difflib
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iopath.common.file_io import get_cache_dir

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from ...text import printable
from ..check.data_sets import (
    different_categories,
    examine,
    file_state,
    require_paths,
)
from ..check.file_names import describe_rules, find_files
from ..check.repair import (
    OF_SOME_MODELS,
    raise_errors,
    usable_part,
    without_entries,
    write_usable,
)
from ..check.structure import read_structure
from ..check.summary import CocoSummary
from ..flip_pairs import flip_pairs as find_flip_pairs

_OWN_FILES = "--train-json (or --train-labels), --train-images, --val-json, --val-images"
# Where Detectron2's metadata keeps a data set's paths, and the files in those that are folders.
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


_LABELS_FROM_ZERO = (
    "; label maps whose classes begin at 1 (ADE20K, Pascal Context) are written from 0 by "
    "resnest_d2.data.write_labels_from_zero(folder, new folder)"
)


def check_coco_json(json_file: str | os.PathLike, image_root: str | os.PathLike) -> CocoSummary:
    """Read a COCO-format file and check that it can be used, and that its images exist.

    Raises:
        FileNotFoundError: the file, the folder or images in it are missing.
        ValueError: with all errors of the file.
    """
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    require_paths(json_file, image_root)
    checked = examine(json_file)
    raise_errors(json_file, [p for p in checked.problems if p.kind not in OF_SOME_MODELS])
    require_images((entry.file_name for entry in checked.image_entries), json_file, image_root)
    return checked.summary


def require_images(names: Iterable[str | None], json_file: str, folder: str) -> None:
    """Raise a FileNotFoundError unless all these files are in the folder."""
    names = [name for name in names if name]
    missing = [name for name in names if not os.path.exists(os.path.join(folder, name))]
    if missing:
        found = find_files(missing, folder, taken=set(names).difference(missing))
        hint = ""
        if found:
            files = few([file.file_name for file in found.values()])
            hint = (
                f"; {describe_rules(found, len(missing))}: {files}. on_bad_data 'repair' takes them"
            )
        raise FileNotFoundError(
            f"{len(missing)} of the {len(names)} images of {json_file} are not in {folder}: "
            f"{few(missing)}{hint}"
        )


def read_sound_coco(
    json_file: str | os.PathLike,
    *,
    on_bad_data: str = "refuse",
    image_root: str | os.PathLike | None = None,
) -> dict[str, list[dict]]:
    """An instance file's normalised content, once its parts can be joined.

    Args:
        on_bad_data: with ``"refuse"`` the values of annotations are not checked; with ``"repair"``
            and ``"skip"`` they are repaired, or left out where they are broken.
        image_root: the folder of the images, which are repaired and left out likewise.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: with all that is wrong.
    """
    json_file = os.fspath(json_file)
    require_paths(json_file, os.path.dirname(json_file) or ".")
    if on_bad_data == "refuse":
        structure = read_structure(json_file)
        raise_errors(json_file, structure.problems)
        return without_entries(structure, structure.merged)
    usable = usable_part(json_file, image_root, on_bad_data, ignored=OF_SOME_MODELS, always=True)
    usable.warn_of_losses()
    return {"annotations": [], **usable.content}


def register_coco(
    json_file: str | os.PathLike,
    image_root: str | os.PathLike,
    *,
    name: str | None = None,
    on_bad_data: str = "refuse",
    masks: bool = True,
    flip_pairs: Sequence[tuple[str, str]] | None = None,
) -> str:
    """Check a COCO-format data set and register it with Detectron2.

    Where the file has to be changed for Detectron2 (ids that are texts, boxes that leave the
    image), a changed copy in Detectron2's cache folder is registered. A file that was changed since
    it was registered is registered again.

    Args:
        json_file, image_root: the annotations, and the folder that their file names start from.
        name: by default one that is computed from these paths, the same in every process.
        on_bad_data: ``"refuse"`` refuses what cannot be kept as it is, ``"repair"`` repairs what
            it can, ``"skip"`` also leaves out the rest (``resnest-d2 data check --help`` lists it).
        masks: whether masks are wanted; without them, unreadable ones do no harm.
        flip_pairs: names of keypoints that a horizontal flip exchanges; by default those that
            :func:`.flip_pairs.flip_pairs` finds by their names.

    Returns:
        The name, for ``DATASETS.TRAIN`` or ``DATASETS.TEST``. Registering a pair twice is harmless.

    Raises:
        FileNotFoundError: the file, the folder or images in it are missing.
        ValueError: with all that is refused, or the name is taken by other files.
    """
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    usable_file, summary = usable_copy(json_file, image_root, on_bad_data=on_bad_data, masks=masks)
    return register_usable(usable_file, image_root, summary, name=name, flip_pairs=flip_pairs).name


def usable_copy(
    json_file: str, image_root: str, *, on_bad_data: str = "refuse", masks: bool = True
) -> tuple[str, CocoSummary]:
    """The file, or a changed copy of it that can be used. Errors of :func:`register_coco`."""
    require_paths(json_file, image_root)
    root = image_root
    if on_bad_data == "refuse":
        names = (entry.file_name for entry in examine(json_file).image_entries)
        require_images(names, json_file, image_root)
        root = None  # only their presence is checked
    usable = usable_part(
        json_file, root, on_bad_data, ignored=OF_SOME_MODELS, masks=masks, keypoints=False
    )
    usable.warn_of_losses()
    folder = os.path.join(get_cache_dir(), "resnest_d2", "coco")
    return write_usable(usable, folder), usable.summary


@dataclass(frozen=True)
class CocoFiles:
    """A data set that was checked and needs no change: any process can register it.

    Attributes:
        source: the user's file, which ``json_file`` was made from.
        metadata: Detectron2's, by key.
        state: of ``json_file``, see :func:`.file_state`.
    """

    name: str
    json_file: str
    image_root: str
    source: str
    metadata: dict[str, Any]
    state: tuple[int, int]

    def register(self) -> None:
        """Register it with Detectron2 in this process.

        Raises:
            ValueError: the name is taken by other files.
        """
        files = {"json_file": self.source, "image_root": self.image_root}
        if not is_registered(self.name, files, (self.json_file, self.state, self.metadata)):
            register_coco_instances(self.name, self.metadata, self.json_file, self.image_root)


def register_usable(
    json_file: str,
    image_root: str,
    summary: CocoSummary,
    *,
    name: str | None = None,
    flip_pairs: Sequence[tuple[str, str]] | None = None,
) -> CocoFiles:
    """Register a checked file that needs no change (any more).

    Other arguments, and errors, are those of :func:`register_coco`.

    Args:
        summary: of the file; ``summary.json_file`` is the one that it was made from.
    """
    metadata = summary.metadata
    if names := keypoint_names(summary):
        pairs = find_flip_pairs(names) if flip_pairs is None else flip_pairs
        metadata["keypoint_names"] = list(names)
        metadata["keypoint_flip_map"] = [tuple(pair) for pair in pairs]
    source = summary.json_file
    name = name or name_of_files(source, image_root)
    files = CocoFiles(name, json_file, image_root, source, metadata, file_state(json_file))
    files.register()
    return files


def keypoint_names(summary: CocoSummary) -> tuple[str, ...]:
    """Names of a file's keypoints; numbers where it has keypoints without names."""
    return summary.keypoint_names or tuple(map(str, range(summary.num_keypoints)))


def name_of_files(file: str, *others: str, kind: str = "coco") -> str:
    """A name that is computed from paths, hence the same in every process."""
    stem = os.path.splitext(os.path.basename(os.path.normpath(file)))[0]
    paths = "\0".join(map(os.path.realpath, (file, *others)))
    return f"{kind}_{stem}_{hashlib.sha256(paths.encode()).hexdigest()[:8]}"


_registered: dict[str, tuple[dict[str, str], Any]] = {}  # files and state by name


def is_registered(name: str, files: Mapping[str, str], state: Any) -> bool:
    """Whether these files are registered under this name in this state already.

    Where another state of them is, it is removed, to be registered again.

    Args:
        files: metadata keys and paths.
        state: anything that changes when the files, or what is registered with them, change.

    Raises:
        ValueError: the name is taken by other files.
    """
    known_files, known_state = _registered.get(name, (None, state))
    if name in DatasetCatalog:
        metadata = MetadataCatalog.get(name)
        known = known_files or {key: metadata.get(key) for key in files}
        if any(not known[key] or not _same_path(known[key], files[key]) for key in files):
            raise ValueError(
                f"data set name {name!r} is taken (by {' and '.join(map(str, known.values()))}): "
                f"choose another for {' and '.join(files.values())}"
            )
        if known_state == state:
            return True
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    _registered[name] = (dict(files), state)
    return False


def _same_path(first: str, second: str) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def require_same_categories(train: CocoSummary, val: CocoSummary) -> None:
    """Raise a ValueError unless both files have the same categories under the same ids.

    Detectron2 numbers the classes by their sorted ids in each file: if the validation file lacks
    one, the classes after it are scored as others.
    """
    files = (train.json_file, val.json_file)
    if different := different_categories(train.given_categories, val.given_categories, files):
        texts = [f"id {number}: {text}" for number, text in different.items()]
        raise ValueError(f"the categories of training and validation data differ: {few(texts)}")


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
        sets = [MetadataCatalog.get(name) for name in absent]
        stuff = _STUFF_MASKS if any(metadata.get("panoptic_root") for metadata in sets) else ""
        if any(metadata.get("evaluator_type") == "sem_seg" for metadata in sets):
            stuff += _LABELS_FROM_ZERO
        raise FileNotFoundError(
            f"the files of {', '.join(absent)} are missing. Detectron2 expects\n{tree}\n"
            f"Its own data sets are in $DETECTRON2_DATASETS (now {root}). "
            f"For files of your own pass {_OWN_FILES}{stuff}"
        )


def few(items: Sequence, limit: int = 3) -> str:
    """The first items and how many more there are, for a message."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(printable(item, 200) for item in items[:limit]) + more

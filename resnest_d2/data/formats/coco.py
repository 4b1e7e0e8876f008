"""COCO-format data sets: registered with Detectron2 once they are checked and usable.

What is wrong is found in :mod:`.check`, and changed where Detectron2 needs that in :mod:`.usable`.

Loading itself stays Detectron2's (``register_coco_instances``, ``load_coco_json``): one label
order, sorted by category id.
"""

import difflib
import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iopath.common.file_io import get_cache_dir

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from ...errors import check_choice
from ..check.data_sets import (
    CocoSummary,
    different_categories,
    examine,
    file_state,
    find_pictures,
    problems_by_set,
    require_paths,
)
from ..check.image_files import PictureEntry
from ..check.kinds import BEHAVIOURS, UNUSABLE
from ..check.problems import Problem, report
from ..check.repair import UsableSet, make_usable, of_any_model, without_entries, write_usable
from ..check.structure import read_sections, read_structure
from ..flip_pairs import flip_pairs as find_flip_pairs

logger = logging.getLogger(__name__)

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


def check_coco_json(json_file: str | os.PathLike, image_root: str | os.PathLike) -> CocoSummary:
    """Read a COCO-format file and check that it can be used with these images.

    Of the images only their presence is checked here; :func:`check_coco` reads them too.

    Raises:
        FileNotFoundError: the file, the folder or images in it are missing.
        ValueError: with all errors of the file.
    """
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    require_paths(json_file, image_root)
    examined = examine(json_file)
    _raise_errors(json_file, of_any_model(examined.problems))
    _require_pictures(json_file, image_root, examined.pictures)
    return examined.summary


def _require_pictures(json_file: str, image_root: str, pictures: Sequence[PictureEntry]) -> None:
    try:
        require_images([entry.file_name for entry in pictures], json_file, image_root)
    except FileNotFoundError as error:
        _, misnamed = find_pictures(json_file, image_root, pictures)
        if not misnamed:
            raise
        raise FileNotFoundError(f"{error}\n{report(misnamed, limit=3)}") from None


def _raise_errors(json_file: str, problems: Sequence[Problem]) -> None:
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        ways = ""
        if not any(problem.kind in UNUSABLE for problem in errors):
            ways = " (on_bad_data 'repair' mends what it can, 'skip' leaves out the rest)"
        raise ValueError(f"{json_file} has {len(errors)} problems{ways}\n{report(errors)}")


def _raise_unusable(json_file: str, problems: Sequence[Problem]) -> None:
    if any(problem.kind in UNUSABLE for problem in problems):
        _raise_errors(json_file, problems)


def _warn_of_losses(json_file: str, usable: UsableSet) -> None:
    if usable.lost:
        logger.warning(
            f"{json_file}: {usable.lost} of {usable.objects} annotations are left out\n"
            f"{report(usable.left_out, limit=3)}"
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

    Only ``annotations`` may be empty, and no two entries share an id.

    Raises:
        ValueError: with all that is wrong.
    """
    data, problems = read_sections(json_file, required)
    _raise_errors(json_file, problems)
    return data


def read_sound_coco(
    json_file: str | os.PathLike,
    *,
    on_bad_data: str = "refuse",
    image_root: str | os.PathLike | None = None,
) -> dict[str, list[dict]]:
    """An instance file's normalised content, once its parts can be joined.

    Args:
        on_bad_data: with ``"refuse"`` what annotations say is not looked at; with ``"repair"`` and
            ``"skip"`` they are repaired, or left out where they are broken.
        image_root: the folder of the images, which are repaired and left out likewise.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: with all that is wrong.
    """
    check_choice("on_bad_data", on_bad_data, BEHAVIOURS)
    json_file = os.fspath(json_file)
    require_paths(json_file, os.path.dirname(json_file) or ".")
    if on_bad_data == "refuse":
        structure = read_structure(json_file)
        _raise_errors(json_file, structure.problems)
        return without_entries(structure.data, structure.merged, json_file)
    if image_root is None:
        problems = examine(json_file).problems
    else:
        pair = (json_file, os.fspath(image_root))
        problems = problems_by_set([pair])[pair]
    _raise_unusable(json_file, problems)
    usable = make_usable(json_file, of_any_model(problems), on_bad_data=on_bad_data, always=True)
    _raise_errors(json_file, usable.refused)
    _warn_of_losses(json_file, usable)
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
    image), a changed copy in the cache folder that Detectron2 uses is registered. A file that has
    changed since it was registered is registered anew.

    Args:
        json_file, image_root: the annotations, and the folder that their file names start from.
        name: by default one that belongs to this pair of paths, the same in every process.
        on_bad_data: ``"refuse"`` refuses what cannot be kept as it is, ``"repair"`` repairs what
            it can, ``"skip"`` also leaves out the rest (``resnest-d2 data check --help`` lists it).
        masks: whether masks are wanted; without them, unreadable ones do no harm.
        flip_pairs: names of keypoints that a horizontal flip exchanges; None for those whose names
            say so, see :func:`.flip_pairs.flip_pairs`.

    Returns:
        The name, for ``DATASETS.TRAIN`` or ``DATASETS.TEST``. Registering a pair again is harmless.

    Raises:
        FileNotFoundError: the file, the folder or images in it are missing.
        ValueError: with all that is refused, or the name stands for other files.
    """
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    usable = usable_copy(json_file, image_root, on_bad_data=on_bad_data, masks=masks)
    files = register_usable(usable, image_root, source=json_file, name=name, flip_pairs=flip_pairs)
    return files.name


def usable_copy(
    json_file: str, image_root: str, *, on_bad_data: str = "refuse", masks: bool = True
) -> str:
    """The file, or a changed copy of it that can be used. Errors of :func:`register_coco`."""
    check_choice("on_bad_data", on_bad_data, BEHAVIOURS)
    require_paths(json_file, image_root)
    if on_bad_data == "refuse":
        examined = examine(json_file)
        problems = examined.problems
        _raise_unusable(json_file, problems)
        _require_pictures(json_file, image_root, examined.pictures)
    else:
        pair = (json_file, image_root)
        problems = problems_by_set([pair])[pair]
        _raise_unusable(json_file, problems)
    usable = make_usable(
        json_file, of_any_model(problems), on_bad_data=on_bad_data, masks=masks, keypoints=False
    )
    _raise_errors(json_file, usable.refused)
    _warn_of_losses(json_file, usable)
    if usable.content is None:
        return json_file
    folder = os.path.join(get_cache_dir(), "resnest_d2", "coco")
    return write_usable(usable.content, json_file, folder)


@dataclass(frozen=True)
class CocoFiles:
    """A data set that was checked and needs no change: any process can register it.

    Attributes:
        name: for ``DATASETS.TRAIN`` or ``DATASETS.TEST``.
        json_file, image_root: what is loaded.
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
        """Make it known to Detectron2 in this process.

        Raises:
            ValueError: the name stands for other files.
        """
        files = {"json_file": self.source, "image_root": self.image_root}
        if not is_registered(self.name, files, (self.json_file, self.state, self.metadata)):
            register_coco_instances(self.name, self.metadata, self.json_file, self.image_root)


def register_usable(
    json_file: str,
    image_root: str,
    *,
    source: str,
    name: str | None = None,
    flip_pairs: Sequence[tuple[str, str]] | None = None,
) -> CocoFiles:
    """Register a file that needs no change (any more).

    Args:
        source: the file that it was made from, which the default name is from.

    Other arguments, and errors, are those of :func:`register_coco`.
    """
    summary = check_coco_json(json_file, image_root)
    # Detectron2 sets the first two again on loading, as lists and with the same values.
    metadata = {
        "thing_classes": list(summary.class_names),
        "thing_dataset_id_to_contiguous_id": {c: i for i, c in enumerate(summary.category_ids)},
    }
    if names := keypoint_names(summary):
        pairs = find_flip_pairs(names) if flip_pairs is None else flip_pairs
        metadata["keypoint_names"] = list(names)
        metadata["keypoint_flip_map"] = [tuple(pair) for pair in pairs]
    name = name or name_of_files("coco", {"json_file": source, "image_root": image_root})
    files = CocoFiles(name, json_file, image_root, source, metadata, file_state(json_file))
    files.register()
    return files


def keypoint_names(summary: CocoSummary) -> tuple[str, ...]:
    """Names of a file's keypoints; numbers where it has keypoints without names."""
    return summary.keypoint_names or tuple(map(str, range(summary.num_keypoints)))


def name_of_files(prefix: str, files: Mapping[str, str]) -> str:
    """A name that belongs to these paths, the first of them a JSON file, in every process."""
    stem = os.path.splitext(os.path.basename(next(iter(files.values()))))[0]
    paths = "\0".join(os.path.realpath(path) for path in files.values())
    return f"{prefix}_{stem}_{hashlib.sha256(paths.encode()).hexdigest()[:8]}"


def is_registered(name: str, files: Mapping[str, str], state: Any) -> bool:
    """Whether a name stands for these files in this state already.

    Where it stands for another state of them, it is given up, to be registered anew.

    Args:
        files: metadata keys and paths.
        state: what changes where the files, or what is registered with them, change.

    Raises:
        ValueError: the name stands for other files.
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


_registered: dict[str, tuple[dict[str, str], Any]] = {}  # files and state by name


def _same_path(first: str, second: str) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def check_same_classes(train: CocoSummary, val: CocoSummary) -> None:
    """Raise a ValueError unless both files have the same categories under the same ids.

    Detectron2 numbers the classes by their sorted ids in each file: were one missing from the
    validation file, all later ones would be scored against their neighbour.
    """
    ours, theirs = (dict(zip(s.given_ids, s.class_names, strict=True)) for s in (train, val))
    if different := different_categories(ours, theirs):
        raise ValueError(
            f"the categories of {train.json_file} (training) and {val.json_file} (validation) "
            f"differ: " + few([f"id {number}: {text}" for number, text in different.items()])
        )


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

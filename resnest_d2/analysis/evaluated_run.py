"""An evaluated run: its config, its detections, and the data that they belong to.

Evaluation writes into ``OUTPUT_DIR/inference`` (into one folder per data set where there are
several) ``coco_instances_results.json``, and beside it ``data.json``, which names the data.
"""

import contextlib
import glob
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from pycocotools.coco import COCO

from detectron2.config import CfgNode

from ..checkpoint import find_checkpoint, parse_config
from ..config import get_value
from ..data.check.data_sets import examine
from ..data.check.normalise import given_ids, id_key
from ..data.check.problems import report
from ..data.check.rle import check_texts
from ..data.formats.coco import read_sound_coco
from ..errors import error_text
from ..evaluation.coco_evaluator import DATA, RESULTS
from ..evaluation.ground_truth import GroundTruth
from ..files import require_regular_file
from ..text import printable

_CONFIG = "config.yaml"
_KEYS = {"MODEL.MASK_ON": bool, "MODEL.BACKBONE.NAME": str, "MODEL.RESNETS.DEPTH": int}
_LARGEST = 1e12  # of a coordinate, a score, an iteration

# Problems with which pycocotools would crash, or give wrong numbers.
_UNSAFE = frozenset(
    "bad-box bad-iscrowd bad-segmentation bad-polygon stray-polygon bad-rle rle-size".split()
)


@dataclass(frozen=True)
class EvaluatedRun:
    """Detections of a run, with what is needed to judge and to show them.

    Attributes:
        folder: the run's ``OUTPUT_DIR``.
        json_file, image_root, truth: the data set of the evaluation, and its objects.
        results: in COCO's format, with the data set's category ids.
        tasks: ``("bbox",)`` or ``("bbox", "segm")``.
        history: the lines of ``metrics.json``; empty where nothing was trained in the folder.
    """

    folder: Path
    config: CfgNode
    json_file: Path
    image_root: Path
    truth: GroundTruth
    results: list[dict[str, Any]]
    tasks: tuple[str, ...]
    history: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.resolve().name

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the category ids."""
        return tuple(self.truth.coco.cats[i]["name"] for i in sorted(self.truth.coco.cats))

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Median height and width of the images, pixels; 480, 640 if the data has no sizes."""
        sizes = [(i.get("height"), i.get("width")) for i in self.truth.coco.imgs.values()]
        sizes = [size for size in sizes if all(size)] or [(480, 640)]
        return tuple(int(median(side)) for side in zip(*sizes, strict=True))

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to predict with, or None."""
        try:
            return find_checkpoint(self.folder)
        except (FileNotFoundError, ValueError):
            return None


def read_evaluated_run(
    folder: str | os.PathLike,
    *,
    data: tuple[str | os.PathLike, str | os.PathLike] | None = None,
) -> EvaluatedRun:
    """Read a run's config, detections and history.

    Args:
        folder: a run's ``OUTPUT_DIR``.
        data: (COCO json file, image folder) of the evaluation; needed where they have moved.

    Raises:
        FileNotFoundError: there is no such folder, it was not evaluated, or the data is missing.
        ValueError: a file is invalid, or the run was evaluated on several data sets.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    config_file = folder / _CONFIG
    if not config_file.is_file():
        raise FileNotFoundError(f"{folder} has no {_CONFIG}: it is not a run's output folder")
    try:
        config = parse_config(config_file.read_text(encoding="utf-8"))
        for key, kind in _KEYS.items():
            if type(get_value(config, key)) is not kind:
                raise ValueError(f"its {key} must be a {kind.__name__}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config_file} cannot be read: {error_text(error)}") from error
    results_file = _results_file(folder)
    json_file, image_root = map(Path, data or _recorded_data(results_file.with_name(DATA)))
    structure = COCO()
    structure.dataset = _read_truth(json_file)
    if not structure.dataset["annotations"]:
        raise ValueError(f"{json_file} has no annotations to compare the results of {folder} with")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints progress
        structure.createIndex()
    tasks = ("bbox", "segm") if config.MODEL.MASK_ON else ("bbox",)
    results = _read_json(results_file, list)
    _use_own_ids(results, structure)
    _check_results(results_file, results, structure.imgs, tasks)
    return EvaluatedRun(
        folder=folder,
        config=config,
        json_file=json_file,
        image_root=image_root,
        truth=GroundTruth(structure, name=str(json_file)),
        results=results,
        tasks=tasks,
        history=read_history(folder / "metrics.json"),
    )


def find_runs(path: str | os.PathLike) -> list[Path]:
    """The output folders of runs; a FileNotFoundError if there are none.

    Args:
        path: a run's ``OUTPUT_DIR``, a folder of such folders, or a pattern such as
            ``runs/resnest50_*``.
    """
    path = Path(path)
    if (path / _CONFIG).is_file():
        return [path]
    found = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    runs = sorted(folder for folder in found if (folder / _CONFIG).is_file())
    if not runs:
        what = "is no run's output folder and contains none" if path.is_dir() else "is no folder"
        raise FileNotFoundError(f"{path} {what}: a run's folder has a {_CONFIG}")
    return runs


def _results_file(folder: Path) -> Path:
    files = sorted((folder / "inference").glob(f"**/{RESULTS}"))
    if not files:
        raise FileNotFoundError(
            f"{folder / 'inference'} has no {RESULTS}: evaluate the run first, resnest-d2 evaluate "
            f"--config-file {folder / _CONFIG} --val-json FILE --val-images DIR "
            f"OUTPUT_DIR {folder} MODEL.WEIGHTS CHECKPOINT"
        )
    if len(files) > 1:
        raise ValueError(
            f"{folder} was evaluated on {len(files)} data sets, but must have one: "
            + ", ".join(str(file.parent.relative_to(folder)) for file in files)
        )
    return files[0]


def _recorded_data(file: Path) -> tuple[str, str]:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file.parent} does not say which data its results belong to: give the JSON file and "
            "the image folder"
        )
    record = _read_json(file, dict)
    names = record.get("json_file"), record.get("image_root")
    if not all(type(name) is str and name.isprintable() for name in names):
        raise ValueError(f"{file} does not name a json_file and an image_root")
    return names


def _read_truth(json_file: Path) -> dict[str, list[dict]]:
    """A data set whose boxes and masks are safe for pycocotools, which checks nothing."""
    dataset = read_sound_coco(json_file)
    unsafe = [p for p in examine(str(json_file)).problems if p.kind in _UNSAFE]
    if unsafe:
        raise ValueError(f"{json_file} cannot be used\n{report(unsafe, limit=3)}")
    return dataset


def _use_own_ids(results: list, truth: COCO) -> None:
    """Replace the ids of the user's file by those that reading the file has given, in place."""
    for key, entries in (("image_id", truth.imgs), ("category_id", truth.cats)):
        numbers = {id_key(given): number for number, given in given_ids(entries).items()}
        for result in results if numbers else ():
            if type(result) is dict and type(result.get(key)) in (int, float, str):
                result[key] = numbers.get(id_key(result[key]), result[key])


def _check_results(file: Path, results: list, images: Mapping, tasks: Sequence[str]) -> None:
    """Refuse results that are not in COCO's format: what uses them does not check them."""
    texts, pixels, places = [], [], []
    for place, result in enumerate(results):
        if type(result) is not dict:
            raise ValueError(f"{file}: result {place} is a {type(result).__name__}, not an object")
        image = images.get(result.get("image_id")) if _is_id(result.get("image_id")) else None
        size = image and [image.get("height"), image.get("width")]
        mask = result.get("segmentation") if "segm" in tasks else None
        for key, sound in (
            ("image_id", _is_id(result.get("image_id"))),
            ("category_id", _is_id(result.get("category_id"))),
            ("score", _is_number(result.get("score"))),
            ("bbox", _are_numbers(result.get("bbox"), 4)),
            ("segmentation", "segm" not in tasks or _is_rle(mask, size)),
        ):
            if not sound:
                value = printable(repr(result.get(key)), 60)
                raise ValueError(f"{file}: result {place} has no valid {key}, got {value}")
        if mask:
            texts.append(mask["counts"])
            pixels.append(mask["size"][0] * mask["size"][1])
            places.append(place)
    for place, problem in zip(places, check_texts(texts, pixels) if texts else (), strict=True):
        if problem:
            raise ValueError(f"{file}: result {place} has no valid segmentation: {problem}")


def _is_id(value: object) -> bool:
    return type(value) in (int, str)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST  # NaN is not


def _are_numbers(value: object, count: int) -> bool:
    return type(value) is list and len(value) == count and all(map(_is_number, value))


def _is_rle(mask: object, size: list | None) -> bool:
    """An RLE of the image's height and width, if known; its counts are checked later."""
    return (
        type(mask) is dict
        and type(mask.get("counts")) is str
        and _are_numbers(mask.get("size"), 2)
        and (not size or mask["size"] == size)
    )


def _read_json(file: Path, kind: type) -> Any:
    try:
        require_regular_file(file)
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{file} must hold a {kind.__name__}, got {type(content).__name__}")
    return content


def read_history(file: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a ``metrics.json``, without any that a killed process has cut off."""
    file, lines = Path(file), []
    for text in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if type(line) is dict and _is_number(line.get("iteration", 0)):
            lines.append({k: v for k, v in line.items() if type(v) is not int or _is_number(v)})
    return lines

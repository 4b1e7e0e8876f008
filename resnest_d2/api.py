"""Training and evaluation from Python, for notebooks and other programs.

The same as the commands ``resnest-d2 train`` and ``evaluate``, with the same checks and errors.
A call restores logging, random generators and cuDNN's settings. Data sets stay registered, under
names that are made from their paths.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from .checkpoint import find_checkpoint
from .config import check_pairs
from .model_zoo.trained import checkpoint_file

DataSets = Sequence[tuple[str | os.PathLike, str | os.PathLike]]
Data = str | os.PathLike | Sequence[str] | tuple[str | os.PathLike, str | os.PathLike] | DataSets


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        metrics: of the last evaluation, ``{"bbox": {"AP": …}, "segm": {…}}``, 0-100, by data set
            if there are several; empty if nothing was evaluated. A metric without objects (AP of
            small objects where there are none) is NaN.
        checkpoint: the file to predict with: after training ``model_best.pth`` if
            ``RESNEST.BEST.METRIC`` is set, else ``model_final.pth``.
    """

    metrics: dict[str, Any]
    checkpoint: Path


def train(
    config: str | os.PathLike | CfgNode,
    *,
    train: Data,
    val: Data | None = None,
    output_dir: str | os.PathLike,
    opts: Sequence[Any] = (),
    resume: bool = False,
    init_from: str | os.PathLike | None = None,
    classes: str | os.PathLike | None = None,
    keypoint_flip_pairs: Sequence[tuple[str, str]] | None = None,
    on_bad_data: str = "refuse",
    num_processes: int = 1,
    quiet: bool = False,
) -> RunResult:
    """Train a detector, or a model for segmentation or classification.

    Args:
        config: a packaged config's name, a YAML file, or a config. All values of a config count as
            given together, so that ``RESNEST.AUTO_SCALE`` scales only for values of ``opts``.
        train: what to train on. Your own COCO-format data is a pair (json file, image folder) or a
            list of pairs; for semantic segmentation a pair is (folder of label maps, image
            folder); for classification it is one folder, with a folder of images for each class. A
            string or a list of strings names registered data sets. The number of classes is that of
            the data.
        val: what to evaluate on, in the same form; None evaluates nothing.
        output_dir: folder for checkpoints, log and metrics. It must not hold another run.
        opts: ``[KEY, VALUE, …]``, as for :func:`resnest_d2.get_config`.
        resume: go on from the last checkpoint of ``output_dir``, if it has one.
        init_from: weights to start from, in place of ``MODEL.WEIGHTS``.
        classes: file with the names of the classes: of label maps one per line or a JSON list, of
            class folders a JSON object of names by folder.
        keypoint_flip_pairs: pairs of names of keypoints that a horizontal flip exchanges, such as
            ``[("l_eye", "r_eye")]``; None for names with left and right.
        on_bad_data: ``"refuse"`` refuses own data with errors; ``"repair"`` repairs what it can and
            refuses the rest; ``"skip"`` leaves the rest out.
        num_processes: processes on this machine, one per GPU, or on the CPU.
        quiet: show only warnings and errors of the log; ``output_dir``/log.txt has all of it.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: with key, value and choices;
            before anything is trained.
    """
    from .data import require_registered

    check_pairs(opts)
    train_pairs, train_names = _split("train", train)
    val_pairs, val_names = _split("val", val)
    if not (train_pairs or train_names):
        raise ValueError("train is empty: give (json file, image folder), or a data set's name")
    if train_pairs and val_names:
        raise ValueError(
            "val must be (json file, image folder) pairs, as train is: the categories of both are "
            f"compared. Got {', '.join(val_names)}"
        )
    added = ["OUTPUT_DIR", os.fspath(output_dir), "DATASETS.TEST", tuple(val_names)]
    if keypoint_flip_pairs is not None:
        added += ["RESNEST.KEYPOINT_FLIP_PAIRS", tuple(map(tuple, keypoint_flip_pairs))]
    if train_names:
        added += ["DATASETS.TRAIN", tuple(train_names)]
        require_registered(train_names)
    metrics = _run(
        config,
        (*added, *opts),
        train=train_pairs,
        val=val_pairs,
        resume=resume,
        init_from=None if init_from is None else os.fspath(init_from),
        classes=_file_of_classes(classes),
        on_bad_data=on_bad_data,
        num_processes=num_processes,
        quiet=quiet,
    )
    return RunResult(metrics, find_checkpoint(output_dir, best=True))


def evaluate(
    checkpoint: str | os.PathLike,
    *,
    val: Data | None = None,
    output_dir: str | os.PathLike | None = None,
    opts: Sequence[Any] = (),
    config: str | os.PathLike | CfgNode | None = None,
    classes: str | os.PathLike | None = None,
    on_bad_data: str = "refuse",
    num_processes: int = 1,
    quiet: bool = False,
) -> RunResult:
    """Evaluate a checkpoint.

    Args:
        checkpoint: a file; a run's output folder: its last checkpoint; or ``resnest://NAME``, a
            published detector, which is downloaded where it is not here.
        val: see :func:`train`. None: the config's ``DATASETS.TEST``; your own files are known by
            name only in the process that trained on them.
        output_dir: the detections and the log go to its ``inference``. None: the checkpoint's
            folder, for a published detector the recipe's ``OUTPUT_DIR``.
        opts: ``[KEY, VALUE, …]``.
        config: None takes the config in the checkpoint, or the published detector's recipe; the
            data must then have the classes that it was trained on. A checkpoint of stock
            Detectron2's trainer needs the config that it was trained with.
        classes: see :func:`train`; needed where class folders got other names in training.
        on_bad_data, num_processes, quiet: see :func:`train`.

    Raises:
        ValueError, KeyError, FileNotFoundError: see :func:`train`.
    """
    check_pairs(opts)
    pairs, names = _split("val", val)
    added = ["DATASETS.TEST", tuple(names)] if names else []
    if output_dir is not None:
        added += ["OUTPUT_DIR", os.fspath(output_dir)]
    metrics = _run(
        config,
        (*added, *opts),
        val=pairs,
        eval_only=True,
        checkpoint=os.fspath(checkpoint),
        classes=_file_of_classes(classes),
        on_bad_data=on_bad_data,
        num_processes=num_processes,
        quiet=quiet,
    )
    return RunResult(metrics, checkpoint_file(checkpoint))


def _run(config: str | os.PathLike | CfgNode | None, opts: tuple, **fields) -> dict[str, Any]:
    """The metrics of a run; see ``RunRequest``."""
    from .engine import RunRequest, run

    config = os.fspath(config) if isinstance(config, os.PathLike) else config
    return _floats(run(RunRequest(config, opts, **fields)))


def _file_of_classes(classes: str | os.PathLike | None) -> str | None:
    if not isinstance(classes, (str, os.PathLike, type(None))):
        raise TypeError(f"classes must be a file with the names, got {classes!r}")
    return None if classes is None else os.fspath(classes)


def _split(name: str, data: Data | None) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """Pairs of paths, or names of registered data sets."""
    if data is None:
        return (), []
    if isinstance(data, (str, os.PathLike)) and data not in DatasetCatalog and os.path.isdir(data):
        return (("", os.fspath(data)),), []  # folders of classes
    items = [data] if isinstance(data, str) else list(data)
    if _is_pair(items):
        items = [items]
    if all(isinstance(item, str) for item in items):
        return (), items
    if all(not isinstance(item, (str, os.PathLike)) and _is_pair(list(item)) for item in items):
        return tuple((os.fspath(json_file), os.fspath(folder)) for json_file, folder in items), []
    raise ValueError(
        f"{name} must be (json file, image folder), a list of such pairs, a folder of class "
        f"folders, a registered data set's name or a list of names, got {data!r}"
    )


def _is_pair(items: list) -> bool:
    """Whether these are a file and a folder, not two registered names."""
    paths = len(items) == 2 and all(isinstance(item, (str, os.PathLike)) for item in items)
    return paths and not all(isinstance(i, str) and i in DatasetCatalog for i in items)


def _floats(metrics: dict) -> dict[str, Any]:
    return {
        str(key): _floats(value) if isinstance(value, dict) else float(value)
        for key, value in metrics.items()
    }

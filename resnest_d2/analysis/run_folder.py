"""What the folders of evaluated runs of every task have: a config, a history, and results.

Evaluation writes its results into ``OUTPUT_DIR/inference`` (into one folder per data set where
there are several), and beside them ``data.json``, which names the data.
"""

import abc
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detectron2.config import CfgNode

from ..checkpoint import find_checkpoint, parse_config
from ..config import get_value
from ..errors import error_text
from ..evaluation.data_file import DATA
from ..files import require_regular_file

CONFIG = "config.yaml"

_KEYS = {
    "MODEL.META_ARCHITECTURE": str,
    "MODEL.MASK_ON": bool,
    "MODEL.BACKBONE.NAME": str,
    "MODEL.RESNETS.DEPTH": int,
}
_LARGEST = 1e12  # of a coordinate, a score, an iteration


class WeightedMetrics(NamedTuple):
    """Metrics on B data sets, 0-100; NaN where a data set has no such class.

    Attributes:
        overall: (M, B), in the order of the task's metrics; the main one is the first.
        classes: (K, B), the main metric of each class.
    """

    overall: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class EvaluatedRun(abc.ABC):
    """An evaluated run, with what :func:`.compare_runs` needs. Each kind of results has a subclass.

    Attributes:
        folder: the run's ``OUTPUT_DIR``.
        history: the lines of ``metrics.json``; empty where nothing was trained in the folder.
    """

    folder: Path
    config: CfgNode
    history: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.resolve().name

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to predict with, or None."""
        try:
            return find_checkpoint(self.folder)
        except (FileNotFoundError, ValueError):
            return None

    @property
    @abc.abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """Such as ``("bbox", "segm")``."""

    @property
    @abc.abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """In the order of the class numbers."""

    @property
    @abc.abstractmethod
    def num_images(self) -> int:
        """Images that it was evaluated on."""

    @property
    @abc.abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Median height and width of the images, pixels."""

    @property
    @abc.abstractmethod
    def data(self) -> Path:
        """The file or the folder of the ground truth."""

    @abc.abstractmethod
    def content(self, tasks: Sequence[str]) -> dict[str, dict]:
        """What the metrics depend on besides the results, by a name for an error message."""

    @abc.abstractmethod
    def weighted_metrics(
        self, task: str, times: np.ndarray, *, on_class: Callable[[], object] = lambda: None
    ) -> WeightedMetrics:
        """The metrics on B data sets.

        Args:
            times: how many times each image counts in each data set (B, images), float64.
            on_class: called after each class, for a progress bar.
        """


def read_config(folder: Path) -> CfgNode:
    """The config of a run.

    Raises:
        FileNotFoundError: there is no such folder, or it is no run's.
        ValueError: the config is invalid.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    file = folder / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}: it is not a run's output folder")
    try:
        config = parse_config(file.read_text(encoding="utf-8"))
        for key, kind in _KEYS.items():
            if type(get_value(config, key)) is not kind:
                raise ValueError(f"its {key} must be a {kind.__name__}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read: {error_text(error)}") from error
    return config


def results_file(folder: Path, name: str, truth: str = "") -> Path:
    """The results of a run.

    Args:
        name: of the file.
        truth: how the ground truth is given to ``evaluate`` besides the images, for the error
            message.

    Raises:
        FileNotFoundError: it was not evaluated.
        ValueError: it was evaluated on several data sets.
    """
    files = sorted((folder / "inference").glob(f"**/{name}"))
    if not files:
        raise FileNotFoundError(
            f"{folder / 'inference'} has no {name}: evaluate the run first, resnest-d2 evaluate "
            f"--config-file {folder / CONFIG} {truth + ' ' * bool(truth)}--val-images DIR "
            f"OUTPUT_DIR {folder} MODEL.WEIGHTS CHECKPOINT"
        )
    if len(files) > 1:
        raise ValueError(
            f"{folder} was evaluated on {len(files)} data sets, but must have one: "
            + ", ".join(str(file.parent.relative_to(folder)) for file in files)
        )
    return files[0]


def distinct_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The last parts of the paths, as many as are needed to tell different ones apart."""
    names: tuple[str, ...] = ()
    for parts in range(1, 1 + max(len(folder.parts) for folder in folders)):
        names = tuple("/".join(folder.parts[-parts:]) for folder in folders)
        if len(set(names)) == len(set(folders)):
            break
    return names


def recorded_data(results: Path, *names: str) -> list[Path]:
    """Files and folders, by their names in the record of the data beside the results."""
    file = results.with_name(DATA)
    if not file.is_file():
        raise FileNotFoundError(
            f"{file.parent} does not say which data its results belong to: give them "
            "(--val-images, and --val-json or --val-labels where it has them)"
        )
    record = read_json(file, dict)
    paths = [record.get(name) for name in names]
    if not all(type(path) is str and path.isprintable() for path in paths):
        raise ValueError(f"{file} does not name a {' and a '.join(names)}")
    return list(map(Path, paths))


def read_json(file: Path, kind: type) -> Any:
    """The content of a JSON file; a ValueError unless it is of this type."""
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
        if type(line) is dict and is_number(line.get("iteration", 0)):
            lines.append({k: v for k, v in line.items() if type(v) is not int or is_number(v)})
    return lines


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number of a possible size; NaN is not."""
    return type(value) in (int, float) and abs(value) < _LARGEST

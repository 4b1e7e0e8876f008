"""Finding files of weights, and the checkpoints of training runs."""

import os
import re
from pathlib import Path

from iopath.common.file_io import PathHandler

from detectron2.utils.file_io import PathManager

from .files import read_weights

__all__ = [
    "PROVENANCE_KEY",
    "RECORD_KEY",
    "find_checkpoint",
    "read_checkpoint",
    "read_record",
    "register_handler",
    "resolve_weights",
]

RECORD_KEY = "resnest_d2"
"""Entry of a checkpoint that says what it is; see :func:`resnest_d2.checkpoint.make_record`."""

PROVENANCE_KEY = "provenance"
"""Entry of a converted file: where it comes from; see :func:`.provenance.convert_file`."""

PREFIX = "resnest://"
FOLDER_VARIABLE = "RESNEST_D2_WEIGHTS"

_NAME = re.compile(r"\w[\w.-]*")  # no folders, no patterns


def find_checkpoint(source: str | os.PathLike) -> Path:
    """A checkpoint file, or the last one of a run's output folder.

    Raises:
        FileNotFoundError: no such file, or a folder without checkpoints.
    """
    path = Path(source)
    if path.is_dir():
        last = path / "last_checkpoint"
        if not last.is_file():
            raise FileNotFoundError(f"{path} holds no training run: it has no last_checkpoint")
        path = path / last.read_text().strip()
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    return path


def read_checkpoint(path: str | os.PathLike) -> dict:
    """A file of weights as a checkpoint: ``model``, and what lay beside it.

    Errors as :func:`.files.read_weights`.
    """
    stored = read_weights(path)
    return {**stored.metadata, "model": stored.tensors}


def read_record(checkpoint: dict, path: str | os.PathLike) -> dict:
    """The record that training wrote beside the weights: ``config``, ``class_names``, ``version``.

    Args:
        checkpoint: as :func:`read_checkpoint` gives it.
        path: its file, for the message.

    Raises:
        ValueError: there is none, or a damaged one.
    """
    if RECORD_KEY not in checkpoint or "model" not in checkpoint:
        lacking = "model" if RECORD_KEY in checkpoint else RECORD_KEY
        raise ValueError(
            f"{path} has no entry {lacking!r}, so it does not say which model it belongs to: "
            "prediction needs a checkpoint that resnest-d2 train wrote"
        )
    record = checkpoint[RECORD_KEY]
    entries = [("model", checkpoint["model"], dict), (RECORD_KEY, record, dict)]
    if isinstance(record, dict):
        entries += [("config", record.get("config"), str)]
        entries += [("class_names", record.get("class_names"), list)]
    for name, value, kind in entries:
        if not isinstance(value, kind):
            raise ValueError(
                f"{path} is damaged: its {name} must be a {kind.__name__}, "
                f"got {type(value).__name__}"
            )
    return record


def resolve_weights(uri: str) -> str:
    """The file that ``MODEL.WEIGHTS`` means, checked to exist.

    ``resnest://NAME`` is looked for in the folder that the environment variable
    ``RESNEST_D2_WEIGHTS`` names: ``NAME``; else ``NAME.pth`` or ``NAME.pkl``; else the published
    ``NAME-<8 hex digits>.pth``. Detectron2's ``?matching_heuristics=True`` may follow.
    Other prefixes (``detectron2://``, ``https://``) are returned as they are.

    Raises:
        FileNotFoundError: no such file; the message names the ways out.
        ValueError: several files match, or NAME is no plain name.
    """
    if uri.startswith(PREFIX):
        return _find_by_name(uri)
    path = uri.partition("?")[0]  # ?matching_heuristics=True is Detectron2's
    if "://" not in path and not os.path.isfile(path):
        raise FileNotFoundError(
            f"MODEL.WEIGHTS {uri} does not exist. To train without weights: "
            "MODEL.WEIGHTS '' MODEL.BACKBONE.FREEZE_AT 0"
        )
    return uri


def _find_by_name(uri: str) -> str:
    name = uri.removeprefix(PREFIX).partition("?")[0]
    if not _NAME.fullmatch(name):
        raise ValueError(f"named weights are resnest://NAME, without folders, got {uri}")
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        root = Path(folder)
        published = re.compile(re.escape(name) + r"-[0-9a-f]{8}\.pth")
        found = (
            [path for path in [root / name] if path.is_file()]
            or [path for path in (root / f"{name}.pth", root / f"{name}.pkl") if path.is_file()]
            or sorted(path for path in root.glob("*.pth") if published.fullmatch(path.name))
        )
        if len(found) == 1:
            return str(found[0])
        if found:
            names = ", ".join(path.name for path in found)
            raise ValueError(f"{uri} is ambiguous: {FOLDER_VARIABLE} {folder} has {names}")
        looked = (
            f"{FOLDER_VARIABLE} is {folder}, which has none of {name}, {name}.pth, {name}.pkl, "
            f"{name}-<8 hex digits>.pth"
        )
    else:
        looked = f"{FOLDER_VARIABLE} is not set"
    raise FileNotFoundError(
        f"the weights {uri} are not here ({looked}). Two ways out: put the file into the folder "
        f"that {FOLDER_VARIABLE} names, or name one with MODEL.WEIGHTS FILE; or train from "
        "scratch, with MODEL.WEIGHTS '' MODEL.BACKBONE.FREEZE_AT 0"
    )


class _WeightsHandler(PathHandler):
    """Lets Detectron2's own checkpointer open ``resnest://NAME``."""

    def _get_supported_prefixes(self):
        return [PREFIX]

    def _get_local_path(self, path, force=False, **kwargs):
        return _find_by_name(path)

    def _open(self, path, mode="r", **kwargs):
        if set(mode) - set("rbt"):
            raise ValueError(f"{path} is read only, got mode {mode!r}")
        return open(_find_by_name(path), mode)  # the caller closes it

    def _isfile(self, path, **kwargs):
        try:
            return bool(_find_by_name(path))
        except (FileNotFoundError, ValueError):
            return False

    _exists = _isfile


def register_handler() -> None:
    """Register the prefix ``resnest://`` with Detectron2. Calling it again does nothing new."""
    PathManager.register_handler(_WeightsHandler(), allow_override=True)

"""Finding and reading files of weights, without running anything in them."""

import os
import pickle
from pathlib import Path

import torch
from iopath.common.file_io import PathHandler

from detectron2.utils.file_io import PathManager

__all__ = [
    "RECORD_KEY",
    "find_checkpoint",
    "read_checkpoint",
    "read_record",
    "register_handler",
    "resolve_weights",
]

RECORD_KEY = "resnest_d2"
"""Entry of a checkpoint that says what it is; see :func:`resnest_d2.checkpoint.make_record`."""

PREFIX = "resnest://"
FOLDER_VARIABLE = "RESNEST_D2_WEIGHTS"


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
    """Read a ``.pth`` file of tensors and plain types.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or one that holds more than tensors and plain types: that
            could run code, and is not read.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{path} is not a checkpoint of tensors and plain types: "
            f"{reason[0] if reason else type(error).__name__}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, a checkpoint is a dict")
    return checkpoint


def read_record(checkpoint: dict, path: str | os.PathLike) -> dict:
    """The record that training wrote beside the weights: ``config``, ``class_names``, ``version``.

    Args:
        checkpoint: as :func:`read_checkpoint` gives it.
        path: its file, for the message.

    Raises:
        ValueError: there is none.
    """
    if RECORD_KEY not in checkpoint or "model" not in checkpoint:
        lacking = "model" if RECORD_KEY in checkpoint else RECORD_KEY
        raise ValueError(
            f"{path} has no entry {lacking!r}, so it does not say which model it belongs to: "
            "prediction needs a checkpoint that resnest-d2 train wrote"
        )
    return checkpoint[RECORD_KEY]


def resolve_weights(uri: str) -> str:
    """The file that ``MODEL.WEIGHTS`` means, checked to exist.

    ``resnest://NAME`` is looked for in the folder that the environment variable
    ``RESNEST_D2_WEIGHTS`` names: ``NAME``, ``NAME.pth``, or the published ``NAME-<hash>.pth``.
    Other prefixes (``detectron2://``, ``https://``) are returned as they are.

    Raises:
        FileNotFoundError: no such file; the message names the ways out.
        ValueError: several files match.
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
    name = uri.removeprefix(PREFIX)
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        root = Path(folder)
        exact = [root / name, root / f"{name}.pth"]
        found = [path for path in exact if path.is_file()][:1]
        found = found or sorted(root.glob(f"{name}-[0-9a-f]*.pth"))
        if len(found) == 1:
            return str(found[0])
        if found:
            names = ", ".join(path.name for path in found)
            raise ValueError(f"{uri} is ambiguous: {FOLDER_VARIABLE} {folder} has {names}")
        looked = (
            f"{FOLDER_VARIABLE} is {folder}, which has none of {name}, {name}.pth, {name}-*.pth"
        )
    else:
        looked = f"{FOLDER_VARIABLE} is not set"
    raise FileNotFoundError(
        f"the weights {uri} are not here ({looked}). Two ways out: put the file there, or name "
        "one with MODEL.WEIGHTS FILE; or train from scratch, with MODEL.WEIGHTS '' "
        "MODEL.BACKBONE.FREEZE_AT 0"
    )


class _WeightsHandler(PathHandler):
    """Lets Detectron2's own checkpointer open ``resnest://NAME``."""

    def _get_supported_prefixes(self):
        return [PREFIX]

    def _get_local_path(self, path, force=False, **kwargs):
        return _find_by_name(path)

    def _open(self, path, mode="r", **kwargs):
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

"""Finding and reading files of weights, without running anything in them."""

import os
import pickle
import re
from pathlib import Path

import torch

__all__ = [
    "RECORD_KEY",
    "find_checkpoint",
    "read_checkpoint",
    "read_record",
]

RECORD_KEY = "resnest_d2"
"""Entry of a checkpoint that says what it is; see :func:`resnest_d2.checkpoint.make_record`."""

_FORBIDDEN = re.compile(r"(?:GLOBAL|Unsupported class) (\w[\w.]*)")  # as torch's messages name it


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
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails in many ways: IndexError, struct.error, …
        raise ValueError(
            f"{path} is not a checkpoint of tensors and plain types: {_reason(error)}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, a checkpoint is a dict")
    return checkpoint


def _reason(error: Exception) -> str:
    """Why torch refused a file, without its advice to load the file unsafely."""
    forbidden = _FORBIDDEN.search(str(error))
    if forbidden:
        return f"it holds {forbidden[1]}, which could run code"
    lines = str(error).strip().splitlines()
    if isinstance(error, pickle.UnpicklingError) or not lines:
        return "it is damaged, or another kind of file"
    return lines[0]


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

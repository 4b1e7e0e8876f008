"""The checkpoints in a run's folder: the newest that can be read, and the old ones to remove.

A run resumes from the checkpoint that Detectron2's file ``last_checkpoint`` names. Where one of the
two is missing or damaged, the newest other checkpoint that can be read is used. A damaged file is
not removed.
"""

import dataclasses
import functools
import logging
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..files import require_regular_file
from ..text import printable
from .record import PROVENANCE_KEY, RECORD_KEY
from .weight_files import StoredWeights, read_weights

logger = logging.getLogger(__name__)

_LAST = "last_checkpoint"
_BEST = "model_best.pth"
_RECORDS = (RECORD_KEY, PROVENANCE_KEY)
_CHECKPOINT = re.compile(r"model_(\d+|final|best)\.pth")  # Detectron2's names
_PERIODIC = re.compile(r"model_(\d{7,})\.pth")
_TEMPORARY = re.compile(rf"\.({_LAST}|{_CHECKPOINT.pattern})\.\d+\.tmp")


@dataclass(frozen=True)
class Choice:
    """A run's newest checkpoint that can be read.

    Attributes:
        path: the file.
        outline: what it holds: tensors on the device ``meta``, plain entries and the record; None
            for each other entry.
        passed_over: newer files, and why they cannot be used.
    """

    path: Path
    outline: StoredWeights
    passed_over: dict[str, str]

    def log(self) -> None:
        """Warn of the files that cannot be used, if there are any."""
        if self.passed_over:
            damaged = "".join(f"\n  {name}: {why}" for name, why in self.passed_over.items())
            logger.warning(
                f"{self.path.parent}: not every checkpoint can be used:{damaged}\n"
                f"In their place: {self.path.name}"
            )


def run_files(folder: str | os.PathLike) -> list[str]:
    """Names of the files in ``folder`` that another run would overwrite, sorted."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if name == _LAST or _CHECKPOINT.fullmatch(name))


def choose_checkpoint(
    folder: str | os.PathLike, *, entries: Collection[str] = (), trust_pickle: bool = False
) -> Choice:
    """The newest checkpoint in a run's folder that can be read.

    A process reads each file once, as long as it does not change.

    Args:
        entries: what it must hold beside the weights. Resuming needs the trainer's state.
        trust_pickle: see :func:`.weight_files.read_weights`.

    Raises:
        FileNotFoundError: no run has saved a checkpoint there.
        ValueError: none can be used; the message has the reason for each.
    """
    folder = Path(folder)
    if not run_files(folder):
        raise FileNotFoundError(f"{printable(folder)} holds no training run: it has no {_LAST}")
    passed_over: dict[str, str] = {}
    for path in _newest_first(folder, passed_over, trust_pickle):
        outline = _outline(path, trust_pickle)
        if isinstance(outline, str):
            passed_over[path.name] = outline
        elif missing := [name for name in entries if name not in outline.metadata]:
            passed_over[path.name] = f"it holds weights without {', '.join(missing)} to resume"
        else:
            return Choice(path, outline, passed_over)
    damaged = "".join(f"\n  {name}: {why}" for name, why in passed_over.items())
    raise ValueError(f"{printable(folder)} has no checkpoint that can be used:{damaged}")


def find_checkpoint(source: str | os.PathLike, *, best: bool = False) -> Path:
    """A checkpoint file, or the newest one of a run's output folder that can be read.

    Args:
        best: in a folder, prefer ``model_best.pth``.

    Raises:
        FileNotFoundError: no such file, or a folder without checkpoints.
        ValueError: no checkpoint in the folder can be read.
    """
    path = Path(source)
    if path.is_dir():
        if best and isinstance(_outline(path / _BEST), StoredWeights):
            return path / _BEST
        choice = choose_checkpoint(path)
        choice.log()
        return choice.path
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {printable(path)}")
    return path


def read_checkpoint(source: str | os.PathLike) -> StoredWeights:
    """Read what :func:`find_checkpoint` finds. Same errors, and those of ``read_weights``."""
    return read_weights(find_checkpoint(source))


def remove_old(folder: str | os.PathLike, *, keep: int, iteration: int) -> None:
    """Remove periodic checkpoints of iterations up to ``iteration``, but for the last ``keep``."""
    found = {}
    for name in os.listdir(folder):
        match = _PERIODIC.fullmatch(name)
        if match and int(match[1]) <= iteration:
            found[int(match[1])] = name
    for number in sorted(found)[:-keep]:
        Path(folder, found[number]).unlink(missing_ok=True)


def remove_temporaries(folder: str | os.PathLike) -> None:
    """Remove what a process that was killed while writing a checkpoint has left."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if _TEMPORARY.fullmatch(name):
            Path(folder, name).unlink(missing_ok=True)


def _newest_first(folder: Path, problems: dict[str, str], trust_pickle: bool) -> Iterator[Path]:
    """The checkpoint that ``last_checkpoint`` names, then the others by iteration."""
    named = None
    try:
        require_regular_file(folder / _LAST)
        name = (folder / _LAST).read_text(encoding="utf-8").strip()
        if name and name == os.path.basename(name) and name.isprintable():
            named = folder / name
            yield named
        else:
            problems[_LAST] = "it names no file" if name else "it is empty"
    except FileNotFoundError:
        problems[_LAST] = "it is missing"
    except (OSError, UnicodeDecodeError) as error:
        problems[_LAST] = f"it cannot be read ({error})"

    def iteration(path: Path) -> int:
        match = _PERIODIC.fullmatch(path.name)
        if match:
            return int(match[1])
        outline = _outline(path, trust_pickle)
        value = outline.metadata.get("iteration") if isinstance(outline, StoredWeights) else None
        return value if isinstance(value, int) else -1

    others = [folder / name for name in run_files(folder) if name != _LAST]
    yield from sorted((path for path in others if path != named), key=iteration, reverse=True)


def _outline(path: Path, trust_pickle: bool = False) -> StoredWeights | str:
    """What a file holds (see :class:`Choice`), or why it cannot be read."""
    try:
        status = path.stat()
    except OSError as error:
        return "it is missing" if isinstance(error, FileNotFoundError) else str(error)
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
    return _read_outline(path.absolute(), stamp, trust_pickle)


@functools.lru_cache(maxsize=64)
def _read_outline(path: Path, stamp: tuple, trust_pickle: bool) -> StoredWeights | str:
    try:
        stored = read_weights(path, trust_pickle=trust_pickle)
    except (OSError, ValueError) as error:
        return str(error).removeprefix(f"{printable(path)} ")
    kept = {
        name: value if isinstance(value, (str, int, float, bool)) or name in _RECORDS else None
        for name, value in stored.metadata.items()
    }
    tensors = {name: value.to("meta") for name, value in stored.tensors.items()}
    return dataclasses.replace(stored, tensors=tensors, metadata=kept)

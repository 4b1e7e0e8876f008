"""Files and folders that are written completely or not at all.

Data are written to a temporary file beside the real one, synced to the disk, and renamed. Whenever
a process or a machine stops, the file has either the old contents or the new ones. A killed process
leaves a file ``.NAME.PID.tmp``.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def writing(path: str | os.PathLike, mode: str = "wb") -> Iterator[IO]:
    """A new file, which replaces ``path`` when the block ends without an error."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # not every file system can sync a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def require_regular_file(path: str | os.PathLike) -> None:
    """Raise an OSError where a path is a pipe, a device or a folder: reading it may never end."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a regular file")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file and make its folder, unless the file has this text already."""
    path, raw = Path(path), text.encode("utf-8")
    if path.is_file() and path.stat().st_size == len(raw) and path.read_bytes() == raw:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        file.write(raw)


def make_folder(folder: str, fill: Callable[[str], None]) -> bool:
    """Make a folder unless it exists. It is renamed into place, hence complete.

    Args:
        fill: called with a path beside ``folder``, to make and fill.

    Returns:
        Whether it was made by this call. If several processes make it, the first one wins.
    """
    if os.path.isdir(folder):
        return False
    root, name = os.path.split(os.path.abspath(folder))
    os.makedirs(root, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as temporary:
        unfinished = os.path.join(temporary, name)
        fill(unfinished)
        try:
            os.rename(unfinished, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
            return False
    return True


def is_write_failure(error: BaseException) -> bool:
    """Whether an error of the system or of PyTorch says that a file could not be written."""
    if isinstance(error, OSError):
        return True
    words = ("PytorchStreamWriter", "unexpected pos", "file write failed")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def write_failure_reason(error: BaseException) -> tuple[str, str]:
    """Reason and advice, such as "No space left on device" and "make room".

    PyTorch's own error, about its archive, has the system's error as a cause.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            full = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            return cause.strerror, "make room" if full else "fix that"
        cause = cause.__cause__ or cause.__context__
    return str(error).partition("\n")[0], "make room"


def free_space(folder: str | os.PathLike) -> str:
    """Free space on the disk of a folder, for a message."""
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:,.1f} MiB"
    except OSError:
        return "an unknown number of bytes"


class AtomicFiles:
    """Wraps a path manager so that local files are written by :func:`writing`.

    ``open`` is for ``with`` statements only, as in Detectron2's checkpointer.
    """

    def __init__(self, path_manager):
        self._path_manager = path_manager

    def __getattr__(self, name: str):
        return getattr(self._path_manager, name)

    def open(self, path: str, mode: str = "r", **kwargs):
        if mode in ("w", "wb") and "://" not in path and not kwargs:
            return writing(path, mode)
        return self._path_manager.open(path, mode, **kwargs)


def walk_once(
    root: str | os.PathLike, entered: set[str] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk`` that follows links and enters each folder once, none whose name has a dot first.

    Args:
        entered: real paths of folders that are not entered; those that are entered are added.
    """
    entered = set() if entered is None else entered
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield place, folders, files

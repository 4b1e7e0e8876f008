"""Files and folders that are written whole or not at all.

Data go to a temporary file beside the real one, then to the disk itself, and only then get the
name that readers know. Whenever a process or a machine stops, that name stands for the old contents
or for the new ones. What a killed process leaves behind is a file ``.NAME.PID.tmp``.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

__all__ = [
    "AtomicFiles",
    "free_space",
    "is_write_failure",
    "make_folder",
    "write_failure_reason",
    "write_text",
    "writing",
]


@contextlib.contextmanager
def writing(path: str | os.PathLike, mode: str = "wb") -> Iterator[IO]:
    """A new file, which takes the place of ``path`` when the block ends without an error."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk too. Not every file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file, and its folder; a file that holds this text already is left alone."""
    path, raw = Path(path), text.encode("utf-8")
    if path.is_file() and path.stat().st_size == len(raw) and path.read_bytes() == raw:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        file.write(raw)


def make_folder(folder: str, fill: Callable[[str], None]) -> bool:
    """Make a folder unless it is there. It appears by one rename, hence complete.

    Args:
        fill: called with a path beside ``folder`` to make and fill.

    Returns:
        Whether it was made now. Of several processes that make the same, one wins and the others
        keep its folder.
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
    """Whether a file could not be written, in the words of the system or of PyTorch's writer."""
    if isinstance(error, OSError):
        return True
    words = ("PytorchStreamWriter", "unexpected pos", "file write failed")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def write_failure_reason(error: BaseException) -> tuple[str, str]:
    """Why, in one line, and what to do. PyTorch's writer complains of its archive after the system.

    Returns:
        Such as "No space left on device" and "make room".
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            full = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            return cause.strerror, "make room" if full else "mend that"
        cause = cause.__cause__ or cause.__context__
    return str(error).partition("\n")[0], "make room"


def free_space(folder: str | os.PathLike) -> str:
    """Free space of a folder's disk, for a message."""
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:,.1f} MiB"
    except OSError:
        return "an unknown number of bytes"


class AtomicFiles:
    """A path manager like another, but the local files that it opens to write are :func:`writing`.

    What it opens is for a ``with`` statement, as Detectron2's checkpointer uses it.
    """

    def __init__(self, path_manager):
        self._path_manager = path_manager

    def __getattr__(self, name: str):
        return getattr(self._path_manager, name)

    def open(self, path: str, mode: str = "r", **kwargs):
        if mode in ("w", "wb") and "://" not in path and not kwargs:
            return writing(path, mode)
        return self._path_manager.open(path, mode, **kwargs)

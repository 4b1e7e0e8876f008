"""Files and folders that are there whole or not at all."""

import os
import tempfile
from collections.abc import Callable

__all__ = ["make_folder", "write_text"]


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


def write_text(path: str, text: str) -> None:
    """Write a text file, and its folder, by one rename; one that holds this text is left alone."""
    raw = text.encode("utf-8")
    if os.path.isfile(path) and os.path.getsize(path) == len(raw):
        with open(path, "rb") as f:
            if f.read() == raw:
                return
    folder, name = os.path.split(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as temporary:
        unfinished = os.path.join(temporary, name)
        with open(unfinished, "wb") as f:
            f.write(raw)
            f.flush()
            os.fsync(f.fileno())
        os.replace(unfinished, path)

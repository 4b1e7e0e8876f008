"""From what a user names, files, folders and patterns, to picture files and their names.

A picture's name is its path below one root, the folder that all sources have in common. No two
files share a name then, and the names say where pictures lie.
"""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.image_reader import SUFFIXES

__all__ = ["PictureFiles", "drawing_names", "find_pictures"]


@dataclass(frozen=True)
class PictureFiles:
    """Files in the order of the sources, each once.

    Attributes:
        root: the deepest folder that holds all sources, an absolute path.
        names: paths below it, with "/".
    """

    root: Path
    names: tuple[str, ...]


def find_pictures(
    sources: Sequence[str | os.PathLike], *, except_in: str | os.PathLike
) -> PictureFiles:
    """The picture files that sources stand for.

    Args:
        sources: a file, whatever its name; a folder: all files in it and in its folders whose names
            end in one of ``SUFFIXES``, but no hidden ones; a pattern of :mod:`glob`, with ``**``:
            the files and folders that it matches.
        except_in: a folder that is not searched: that of the results.

    Raises:
        FileNotFoundError: sources that stand for nothing.
        ValueError: no picture in them, or a folder that cannot be read.
    """
    found: dict[str, None] = {}
    starts, missing = [], []
    results = os.path.realpath(except_in)
    for source in map(os.fspath, sources):
        if os.path.lexists(source):  # a link to nothing too: it is tried, and fails with a reason
            matches = [source]
            starts.append(source if os.path.isdir(source) else os.path.dirname(source))
        elif matches := sorted(_matches(source)):
            plain = itertools.takewhile(lambda part: part == glob.escape(part), Path(source).parts)
            starts.append(os.path.join("", *plain))
        else:
            missing.append(source)
        for match in matches:
            files = _pictures_in(match, results) if os.path.isdir(match) else [match]
            found.update(dict.fromkeys(map(os.path.abspath, files)))
    if missing:
        raise FileNotFoundError(f"no such file, folder or match: {', '.join(missing)}")
    if not found:
        raise ValueError(
            f"no pictures in {', '.join(map(os.fspath, sources))}: of a folder, visible files are "
            f"taken that end in {', '.join(SUFFIXES)}"
        )
    root = os.path.commonpath([os.path.abspath(start) for start in starts])
    names = (Path(os.path.relpath(path, root)).as_posix() for path in found)
    return PictureFiles(Path(root), tuple(names))


def drawing_names(names: Sequence[str], suffix: str, *, given: Mapping[str, str]) -> dict[str, str]:
    """A name of its own for the drawing of each picture: ``a/b.jpg`` is drawn as ``a/b.png``.

    Pictures that differ only in their suffixes keep it: ``b.jpg.png`` and ``b.tif.png``.

    Args:
        suffix: of the drawings, without a dot.
        given: drawings that have their names, by picture; these stay. Names are compared without
            regard to case, as some file systems do.
    """
    used = {name.casefold() for name in given.values()}
    stems = Counter(os.path.splitext(name)[0].casefold() for name in names)
    drawings = dict(given)
    for name in names:
        if name in given:
            continue
        stem = os.path.splitext(name)[0]
        stem = stem if stems[stem.casefold()] == 1 else name
        while f"{stem}.{suffix}".casefold() in used:
            stem += "_"
        drawings[name] = f"{stem}.{suffix}"
        used.add(drawings[name].casefold())
    return drawings


def _matches(pattern: str) -> list[str]:
    """What a pattern of :mod:`glob` matches.

    That follows each link to a folder below ``**``, and links that lead back for ever: here every
    folder is entered once.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        return glob.glob(pattern)
    at = parts.index("**")
    rest = tuple(itertools.dropwhile(lambda part: part == "**", parts[at:]))
    entered: set[str] = set()
    found = []
    for start in glob.glob(os.path.join(*parts[:at])) if at else [""]:
        for place, folders, files in os.walk(start or ".", followlinks=True):
            real = os.path.realpath(place)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if rest:
                found += _matches(os.path.join(glob.escape(place), *rest))
            else:
                found += [os.path.join(place, name) for name in files if not name.startswith(".")]
    return list(dict.fromkeys(found))


def _pictures_in(folder: str, results: str) -> Iterator[str]:
    def refuse(error: OSError):
        raise ValueError(f"the folder {error.filename} cannot be read: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=refuse):
        if os.path.realpath(place) == results:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(place, name)

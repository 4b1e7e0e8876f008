"""Finds image files by files, folders and patterns, and names them and their drawings.

The name of an image is its path below the deepest folder that all sources have in common, so that
no two files share a name.
"""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.image_reader import SUFFIXES, has_image_name
from ..files import walk_once

__all__ = ["ImageFiles", "drawing_names", "find_images"]


@dataclass(frozen=True)
class ImageFiles:
    """Files in the order of the sources, each once.

    Attributes:
        root: the deepest common folder of all sources, an absolute path.
        names: paths below it, with "/".
    """

    root: Path
    names: tuple[str, ...]


def find_images(
    sources: Sequence[str | os.PathLike], *, except_in: str | os.PathLike
) -> ImageFiles:
    """The image files of some sources.

    Args:
        sources: files of any name; folders, searched with their sub-folders for files that are not
            hidden and end in one of ``SUFFIXES``; patterns of :mod:`glob`, with ``**``, for both.
        except_in: a folder that is not searched: that of the results.

    Raises:
        FileNotFoundError: a source that does not exist, or a pattern without a match.
        ValueError: no images, or a folder that cannot be read.
    """
    found: dict[str, None] = {}
    starts, missing = [], []
    results = os.path.realpath(except_in)
    for source in map(os.fspath, sources):
        if os.path.lexists(source):  # also a broken link: reading it fails with a reason
            matches = [source]
            starts.append(source if os.path.isdir(source) else os.path.dirname(source))
        elif matches := sorted(_matches(source)):
            plain = itertools.takewhile(lambda part: part == glob.escape(part), Path(source).parts)
            starts.append(os.path.join("", *plain))
        else:
            missing.append(source)
        for match in matches:
            files = _images_in(match, results) if os.path.isdir(match) else [match]
            found.update(dict.fromkeys(map(os.path.abspath, files)))
    if missing:
        raise FileNotFoundError(f"no such file, folder or match: {', '.join(missing)}")
    if not found:
        raise ValueError(
            f"no images in {', '.join(map(os.fspath, sources))}: of a folder, visible files are "
            f"taken that end in {', '.join(SUFFIXES)}"
        )
    root = os.path.commonpath([os.path.abspath(start) for start in starts])
    names = (Path(os.path.relpath(path, root)).as_posix() for path in found)
    return ImageFiles(Path(root), tuple(names))


def drawing_names(names: Sequence[str], suffix: str, *, given: Mapping[str, str]) -> dict[str, str]:
    """A unique name for the drawing of each image: ``a/b.png`` for ``a/b.jpg``.

    Images that differ only in their suffixes keep them: ``b.jpg.png`` and ``b.tif.png``. Names are
    compared ignoring case, as some file systems do.

    Args:
        suffix: of the drawings, without a dot.
        given: names that drawings already have, by image.
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
    """The matches of a pattern of :mod:`glob`, entering each folder once.

    For ``**``, ``glob`` itself follows links to folders that lead back, again and again.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        return glob.glob(pattern)
    at = parts.index("**")
    rest = tuple(itertools.dropwhile(lambda part: part == "**", parts[at:]))
    entered: set[str] = set()
    found = []
    for start in glob.glob(os.path.join(*parts[:at])) if at else [""]:
        for place, _, files in walk_once(start or ".", entered):
            if rest:
                found += _matches(os.path.join(glob.escape(place), *rest))
            else:
                found += [os.path.join(place, name) for name in files if not name.startswith(".")]
    return list(dict.fromkeys(found))


def _images_in(folder: str, results: str) -> Iterator[str]:
    def refuse(error: OSError):
        raise ValueError(f"the folder {error.filename} cannot be read: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=refuse):
        if os.path.realpath(place) == results:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if has_image_name(name):
                yield os.path.join(place, name)

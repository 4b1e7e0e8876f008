"""Image files that lie on this disk under other names than in the JSON file.

Label tools and other systems write ``images\\a.png``, ``a%20b.png``, ``/upload/1/1a2b3c4d-a.png``
or the folders of their own server. A name is read by one rule after the other until one finds a
file. A file counts as found only where no other is as good and no other
name leads to it.
"""

import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

__all__ = ["FoundFile", "describe_rules", "find_files"]


@dataclass(frozen=True)
class FoundFile:
    """A file that a name stands for.

    Attributes:
        file_name: its path from the image folder.
        how: the name must be read to find it, for a message.
    """

    file_name: str
    how: str


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _decoded(name: str) -> str:
    """Without URL-encoding, query and spaces around; of ``/data/local-files/?d=a.png`` the file."""
    return unquote(_slashes(name).rpartition("?d=")[2].partition("?")[0]).strip()


def _without_prefix(name: str) -> str:
    """Without the 8 hexadecimal digits that Label Studio puts before the name of an upload."""
    folder, base = posixpath.split(_decoded(name))
    return posixpath.join(folder, re.sub(r"^[0-9a-f]{8}-(?=.)", "", base))


def _folded(name: str) -> str:
    """Without the difference of letter case and of composed letters."""
    return unicodedata.normalize("NFC", _without_prefix(name)).casefold()


_Reading = Callable[[str], str]

# How a name is read; how a file's path is read, to be compared with it; whether one of the two may
# have more folders in front. Each rule goes further than the one before it.
_RULES: tuple[tuple[_Reading, _Reading, bool], ...] = (
    (_slashes, str, False),
    (_decoded, str, False),
    (_decoded, str, True),
    (_without_prefix, str, True),
    (_folded, _folded, True),
)


def find_files(
    names: Sequence[str], root: str, taken: Collection[str] = ()
) -> dict[str, FoundFile]:
    """Find the files that names stand for which are not there as they are.

    Args:
        names: such as ``file_name`` of images.
        root: the image folder; files are looked for in all folders below it.
        taken: names of files there that other entries have.

    Returns:
        By name, those for which exactly one file is best.
    """
    taken = {posixpath.normpath(name) for name in taken}
    files = [file for file in _files_below(root) if file not in taken]
    left = dict.fromkeys(names)
    found: dict[str, FoundFile] = {}
    for read_name, read_file, folders in _RULES:
        by_base = defaultdict(list)
        for file in files:
            by_base[posixpath.basename(read_file(file))].append(file)
        for name in list(left):
            wanted = posixpath.normpath(read_name(name)).lstrip("/")
            candidates = by_base[posixpath.basename(wanted)]
            if best := _best(wanted, {file: read_file(file) for file in candidates}, folders):
                found[name] = FoundFile(best, _how(name, best))
                del left[name]
    counts = Counter(file.file_name for file in found.values())
    return {
        name: file
        for name, file in found.items()
        if counts[file.file_name] == 1 and os.path.exists(os.path.join(root, file.file_name))
    }


def describe_rules(found: dict[str, FoundFile], missing: int) -> str:
    """How names must be read to find how many of the missing files, for a message."""
    counts = Counter(file.how for file in found.values())
    rules = "; ".join(f"{how}: {count}" for how, count in counts.most_common())
    return f"{len(found)} of {missing} missing files are found ({rules})"


def _files_below(root: str) -> list[str]:
    """Paths from ``root``, with ``/``."""
    files = []
    for folder, _, names in os.walk(root):
        inner = os.path.relpath(folder, root).replace(os.sep, "/")
        files += [posixpath.normpath(posixpath.join(inner, name)) for name in names]
    return files


def _best(wanted: str, files: dict[str, str], folders: bool) -> str | None:
    """The one file (by path as it is read) that shares most of the wanted path."""
    if folders:
        ends = {
            file: min(path, wanted, key=len)
            for file, path in files.items()
            if f"/{path}".endswith(f"/{wanted}") or f"/{wanted}".endswith(f"/{path}")
        }
    else:
        ends = {file: path for file, path in files.items() if path == wanted}
    longest = max(map(len, ends.values()), default=0)
    best = [file for file, end in ends.items() if len(end) == longest]
    return best[0] if len(best) == 1 else None


def _how(name: str, file: str) -> str:
    """What is different between a name and the path of the file that was found for it."""
    plain = _without_prefix(name)
    base = posixpath.basename(_decoded(name))
    steps = {
        "\\ read as /": _slashes(name) != name,
        "URL-encoding undone": _decoded(name) != _slashes(name),
        "an upload's prefix left out": posixpath.basename(file) != base
        and posixpath.basename(plain) != base,
        "other folders": posixpath.dirname(file) != posixpath.dirname(plain),
        "other letter case": posixpath.basename(file) not in (base, posixpath.basename(plain)),
    }
    return ", ".join(step for step, taken in steps.items() if taken)

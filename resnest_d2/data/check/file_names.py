"""Image files that exist under other names than in the JSON file.

Label tools and other systems write ``images\\a.png``, ``a%20b.png``, ``/upload/1/1a2b3c4d-a.png``
or the folders of their own server. A name is read by one rule after the other until one finds a
file. A file counts as found only where no other file is as good and no other name leads to it.
"""

import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

_LONGEST = 1024  # last characters of a name that are compared
_FOLDERS = 32  # last parts of a path that are compared where folders differ


class FoundFile(NamedTuple):
    """A file's path from the image folder, and how its name was read to find it."""

    file_name: str
    how: str


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _decoded(name: str) -> str:
    """Without URL-encoding, query and spaces around; of ``/data/local-files/?d=a.png`` the file."""
    return unquote(_slashes(name).rpartition("?d=")[2].partition("?")[0]).strip()[-_LONGEST:]


def _without_prefix(name: str) -> str:
    """Without the 8 hexadecimal digits that Label Studio puts before the name of an upload."""
    folder, base = posixpath.split(_decoded(name))
    return posixpath.join(folder, re.sub(r"^[0-9a-f]{8}-(?=.)", "", base))


def _folded(name: str) -> str:
    """Without differences in letter case and in composed letters."""
    return unicodedata.normalize("NFC", _without_prefix(name)).casefold()


_Reading = Callable[[str], str]

# How a name is read; how a file's path is read, to be compared with it; whether one of the two may
# have more folders in front; a text. Each rule goes further than the one before it.
_RULES: tuple[tuple[_Reading, _Reading, bool, str], ...] = (
    (_slashes, str, False, "\\ read as /"),
    (_decoded, str, False, "URL-encoding undone"),
    (_decoded, str, True, "other folders"),
    (_without_prefix, str, True, "an upload's prefix left out"),
    (_folded, _folded, True, "letter case ignored"),
)


def find_files(
    names: Sequence[str], root: str, taken: Collection[str] = ()
) -> dict[str, FoundFile]:
    """Find the files of names that do not exist as they are, in ``root`` and all folders below.

    Args:
        taken: files there that other entries name.

    Returns:
        By name, those for which exactly one file is best.
    """
    taken = {posixpath.normpath(name) for name in taken}
    files = []  # paths from ``root``, with /
    for folder, _, bases in os.walk(root):
        inner = os.path.relpath(folder, root).replace(os.sep, "/")
        files += [posixpath.normpath(posixpath.join(inner, base)) for base in bases]
    files = [file for file in files if file not in taken]
    left = dict.fromkeys(names)
    found: dict[str, FoundFile] = {}
    for read_name, read_file, folders, how in _RULES:
        whole, ending = defaultdict(list), defaultdict(list)  # files, by their paths as read
        for file in files:
            path = read_file(file)
            whole[path].append(file)
            for end in _ends(path) if folders else ():
                ending[end].append(file)
        for name in list(left):
            wanted = posixpath.normpath(read_name(name)).lstrip("/")
            ends = _ends(wanted) if folders else [wanted]
            best = ending.get(wanted) or next((whole[end] for end in ends if end in whole), ())
            if len(best) == 1:
                found[name] = FoundFile(best[0], how)
                del left[name]
    counts = Counter(file.file_name for file in found.values())
    return {
        name: file
        for name, file in found.items()
        if counts[file.file_name] == 1 and os.path.exists(os.path.join(root, file.file_name))
    }


def describe_rules(found: Mapping[str, FoundFile], missing: int) -> str:
    """How many of the missing files are found by which rule, for a message."""
    counts = Counter(file.how for file in found.values())
    rules = "; ".join(f"{how}: {count}" for how, count in counts.most_common())
    return f"{len(found)} of {missing} missing files are found ({rules})"


def _ends(path: str) -> list[str]:
    """A path, and the ends that it has without its first folders, the longest first."""
    parts = path.split("/")[-_FOLDERS:]
    return [path, *("/".join(parts[place:]) for place in range(1, len(parts)))]

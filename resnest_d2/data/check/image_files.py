"""The image files of a data set: whether they exist, are whole, and have the size of the JSON.

Only headers are read where that is enough. A JPEG file that ends with its end marker is whole, and
so is a PNG file that ends with its last chunk and has the right checksums; every other file (also
one with bytes after its end) is decoded, as in training. Of images with more than 8 bits a few are
decoded to see whether their values fit the default rule of :mod:`..intensity`.
"""

import contextlib
import functools
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from PIL import UnidentifiedImageError

from ...progress import progress_bar
from ..image_reader import ImageError, has_many_bits, open_image, orientation, value_ranges
from ..intensity import BY_TYPE, fitting_keys
from .problems import Problem, shown

_THREADS = 8  # files wait for disks and networks more than for processors
_DECODED_PIXELS = 1 << 27  # at the same time, of 4 bytes; an image with more is decoded alone
_SAMPLED = 16  # images with more than 8 bits whose values are looked at
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
_JPEG_END = b"\xff\xd9"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"

T = TypeVar("T")


@dataclass(frozen=True)
class ImageEntry:
    """An entry of a file's ``images``: its index and id (or place) there, what it says of the file.

    ``size`` is (width, height) in pixels; it and ``file_name`` are None where they are invalid.
    """

    index: int
    id: int | float | str
    file_name: str | None
    size: tuple[int, int] | None

    def problem(self, file: str, kind: str, value: object) -> Problem:
        """A problem of the image, in its JSON file or its image file."""
        return Problem(file, self.id, kind, shown(value), ("images", self.index))


@dataclass(frozen=True)
class ImageFile:
    """A kind of problem, or the size as shown and the number of bytes."""

    kind: str | None = None
    value: str | None = None
    size: tuple[int, int] = (0, 0)
    num_bytes: int = 0
    orientation: int | None = None
    many_bits: bool = False


def check_image_files(
    json_file: str, image_root: str, entries: Sequence[ImageEntry]
) -> list[Problem]:
    """The problems of the entries' files, in the entries' order."""
    problems = []
    seen: dict[str, ImageEntry] = {}
    named = [entry for entry in entries if entry.file_name is not None]
    files = look_at(os.path.join(image_root, entry.file_name) for entry in named)
    for entry, (path, file) in zip(named, files, strict=True):
        first = seen.setdefault(os.path.normpath(entry.file_name), entry)
        if first is not entry:
            value = {"file_name": entry.file_name, "first": first.id}
            problems.append(entry.problem(json_file, "duplicate-file-name", value))
        if file.kind:
            problems.append(entry.problem(path, file.kind, file.value))
        elif entry.size and entry.size != file.size:
            value = {"json": list(entry.size), "file": list(file.size)}
            if file.orientation:
                value["exif_orientation"] = file.orientation
            problems.append(entry.problem(path, "size-mismatch", value))
    sampled = sample([path for path, file in files if file.many_bits], _SAMPLED)
    seen = value_ranges(sampled)
    if reasons := [reason for values in seen if (reason := BY_TYPE.misfit(values))]:
        value = f"{'; '.join(reasons)}. For training: {fitting_keys(seen)}"
        problems.append(Problem(json_file, None, "unusual-values", value))
    return problems


def sample(items: Sequence[T], count: int) -> list[T]:
    """At most so many of the items, evenly spaced."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else items


def shared_images(
    first: Iterable[tuple[str, ImageEntry]], second: Iterable[tuple[str, ImageEntry]]
) -> list[tuple[ImageEntry, str, str]]:
    """Equal files of two sets of (image folder, entry), whatever their names.

    Returns:
        Entries of ``first``, their paths, and the paths in ``second``.
    """
    ours, theirs = (
        [
            (os.path.join(root, entry.file_name), entry)
            for root, entry in side
            if entry.file_name is not None
        ]
        for side in (first, second)
    )
    shared = dict(shared_files([path for path, _ in ours], [path for path, _ in theirs]))
    return [(entry, path, shared[path]) for path, entry in ours if path in shared]


def shared_files(first: Sequence[str], second: Sequence[str]) -> list[tuple[str, str]]:
    """Equal image files of two lists, whatever their names: path in the first, in the second."""
    sides = [[(path, f) for path, f in look_at(paths) if not f.kind] for paths in (first, second)]
    # Only files of one length and image size are read.
    keys = [{(f.num_bytes, f.size) for _, f in side} for side in sides]
    both = keys[0] & keys[1]
    ours, theirs = ([p for p, f in side if (f.num_bytes, f.size) in both] for side in sides)
    digests = file_digests([*ours, *theirs])
    found: dict[bytes, str] = {}
    for path, digest in zip(theirs, digests[len(ours) :], strict=True):
        found.setdefault(digest, path)
    pairs = zip(ours, digests[: len(ours)], strict=True)
    return [(path, found[digest]) for path, digest in pairs if digest in found]


def file_digests(paths: Sequence[str]) -> list[bytes]:
    """One value for each file, equal for equal contents."""
    return in_threads(_digest, paths, "comparing images")


def _digest(path: str) -> bytes:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(path, "it is a folder or a device, not a file")
    return _digest_of_state(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1 << 16)
def _digest_of_state(path: str, mtime_ns: int, size: int) -> bytes:
    digest = hashlib.blake2b(digest_size=20)
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.digest()


def look_at(paths: Iterable[str]) -> list[tuple[str, ImageFile]]:
    """Each path, and what is known of its file."""
    paths = list(paths)
    return list(zip(paths, in_threads(_look, paths, "reading images"), strict=True))


def in_threads(function: Callable[[str], T], paths: Sequence[str], doing: str) -> list[T]:
    """The function's results by path, in their order, with a progress bar."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(progress_bar(pool.map(function, paths), desc=doing, total=len(paths)))


def _look(path: str) -> ImageFile:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
            return ImageFile("not-an-image", what)
        if not status.st_size:
            return ImageFile("empty-image", "0 bytes")
        return _read(path, status.st_mtime_ns, status.st_size)
    except (FileNotFoundError, NotADirectoryError):
        return ImageFile("missing-image", "no such file")
    except ImageError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            return ImageFile("not-an-image", error.reason)
        truncated = "truncated" in error.reason.lower()
        return ImageFile("truncated-image" if truncated else "unreadable-image", error.reason)
    except (OSError, ValueError) as error:  # ValueError: a null character
        return ImageFile("unreadable-image", str(error))


@functools.lru_cache(maxsize=1 << 18)  # a file is read again when it has changed
def _read(path: str, mtime_ns: int, num_bytes: int) -> ImageFile:
    with open(path, "rb") as f:
        f.seek(max(0, num_bytes - len(_PNG_END)))
        end = f.read()
    with open_image(path) as image:
        many_bits = has_many_bits(image)
        if image.format == "PNG" and end == _PNG_END:
            turned = orientation(image)
            image.verify()  # the checksums
        else:
            if image.format not in ("JPEG", "MPO") or not end.endswith(_JPEG_END):
                with _budget.take(image.width * image.height):
                    image.load()
            turned = orientation(image)
        size = image.size[::-1] if turned in _TURNED else image.size
    return ImageFile(size=size, num_bytes=num_bytes, orientation=turned, many_bits=many_bits)


class _Budget:
    """Limits the sum of what threads take at the same time: others wait."""

    def __init__(self, total: int):
        self._total = self._left = total
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Take an amount, or all where it is more, for as long as the block runs."""
        amount = min(amount, self._total)
        with self._changed:
            self._changed.wait_for(lambda: amount <= self._left)
            self._left -= amount
        try:
            yield
        finally:
            with self._changed:
                self._left += amount
                self._changed.notify_all()


_budget = _Budget(_DECODED_PIXELS)

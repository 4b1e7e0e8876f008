"""What has been predicted into a folder, image by image, safe from whatever ends the process.

``journal.jsonl`` has the settings in its first line and one image in each later one. Lines are
appended and on the disk before their images count as done. A line that was cut short is dropped
when the journal is opened again. An image that was done twice, since its file had changed, counts
as its last line says and keeps its place.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..files import writing

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "journal.jsonl"


class Journal:
    """A folder's journal, opened by one process at a time; a context manager.

    Args:
        folder: a new or an empty one, or one that has a journal.
        settings: what predictions depend on, as plain types.

    Raises:
        FileExistsError: the folder holds other files.
        ValueError: its journal has other settings or is damaged, or another process has it open.
        OSError: it cannot be written to.

    Attributes:
        drawings: names of the drawings, by image.
    """

    def __init__(self, folder: str | os.PathLike, settings: dict[str, Any]):
        folder = Path(folder)
        path = folder / JOURNAL
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() and any(not name.startswith(".") for name in os.listdir(folder)):
            raise FileExistsError(
                f"{folder} holds files, but no {JOURNAL} of earlier predictions: name a new or an "
                "empty folder"
            )
        self._path, self._end = path, 0
        self._stamps: dict[str, list[int]] = {}
        self._places: dict[str, int] = {}
        self.drawings: dict[str, str | None] = {}
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(FileLock(folder / f".{JOURNAL}.lock", timeout=0))
            except Timeout:
                raise ValueError(f"another process predicts into {folder}") from None
            if not path.exists():
                with writing(path) as file:
                    file.write(_line({"settings": settings}))
            self._file = stack.enter_context(open(path, "r+b", buffering=0))
            _check_settings(folder, self._read(), settings)
            self._file.truncate(self._end)
            self._file.seek(self._end)
            self._opened = stack.pop_all()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self._opened.close()

    def is_done(self, name: str, stamp: list[int] | None) -> bool:
        """Whether an image is done, and its file, which ``stamp`` None says is none, as then."""
        return stamp is not None and self._stamps.get(name) == stamp

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add images, each with ``name``, ``stamp`` and ``drawing``; they are done on return."""
        lines = [_line(record) for record in records]
        data = memoryview(b"".join(lines))
        while data:  # an unbuffered file may take a part
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())
        for record, line in zip(records, lines, strict=True):
            self._note(record, len(line))

    def records(self) -> Iterator[dict[str, Any]]:
        """All images, in the order in which they were first done."""
        with open(self._path, "rb") as file:
            for place in self._places.values():
                file.seek(place)
                yield json.loads(file.readline())

    def _read(self) -> dict[str, Any]:
        """Note all whole lines but the first, and return the settings in that."""
        settings: dict[str, Any] = {}
        with open(self._path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break  # whoever wrote it was stopped
                try:
                    record = json.loads(line)
                    if number == 1:
                        settings = record["settings"]
                        self._end = len(line)
                    else:
                        self._note(record, len(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{self._path} is damaged in line {number}: name another folder"
                    ) from error
        return settings

    def _note(self, record: dict[str, Any], num_bytes: int) -> None:
        name = record["name"]
        self._stamps[name] = record["stamp"]
        self.drawings[name] = record["drawing"]
        self._places[name] = self._end
        self._end += num_bytes


def _check_settings(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    different = [
        f"{key} {old.get(key)} (now {new.get(key)})"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    if different:
        raise ValueError(
            f"{folder} holds predictions with other settings: {', '.join(different)}. Name another "
            "folder"
        )


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"

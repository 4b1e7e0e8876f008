"""The record of which images were predicted into a folder, kept whenever the process ends.

``journal.jsonl`` has the settings in its first line and one image in each later line. An image
counts as done when its line is on the disk. An incomplete last line is dropped when the journal is
opened again. If an image appears twice, because its file had changed, the last record wins, at the
place of the first.
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
    """The journal of a folder, for one process at a time; a context manager.

    Args:
        folder: new, empty, or with a journal.
        settings: what predictions depend on, as plain types.

    Raises:
        FileExistsError: the folder has files but no journal.
        ValueError: the journal has other settings, is damaged or is open in another process.
        OSError: it cannot be written.

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
            old = self._read()
            changes = [
                f"{key} {old.get(key)} (now {settings.get(key)})"
                for key in {**old, **settings}
                if old.get(key) != settings.get(key)
            ]
            if changes:
                raise ValueError(
                    f"{folder} holds predictions with other settings: {', '.join(changes)}. Name "
                    "another folder"
                )
            self._file.truncate(self._end)
            self._file.seek(self._end)
            self._opened = stack.pop_all()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self._opened.close()

    def is_done(self, name: str, stamp: list[int] | None) -> bool:
        """Whether an image is done, with the same ``stamp`` of its file (None: no file)."""
        return stamp is not None and self._stamps.get(name) == stamp

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add images, each with ``name``, ``stamp`` and ``drawing``, and sync them to the disk."""
        lines = [_line(record) for record in records]
        data = memoryview(b"".join(lines))
        while data:  # an unbuffered file may write a part
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())
        for record, line in zip(records, lines, strict=True):
            self._note(record, len(line))

    def records(self) -> Iterator[dict[str, Any]]:
        """All images, in the order in which they were first predicted."""
        with open(self._path, "rb") as file:
            for place in self._places.values():
                file.seek(place)
                yield json.loads(file.readline())

    def _read(self) -> dict[str, Any]:
        """Note the image of each complete line, and return the settings."""
        settings: dict[str, Any] = {}
        with open(self._path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break  # the process that wrote it was stopped
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


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"

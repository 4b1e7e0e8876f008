"""What a run writes beside its checkpoints: metrics and logs, which must never end it.

Where the disk is full, only a checkpoint that cannot be written is a failure. Metrics and log lines
are lost until there is room, which is said once. A resumed run takes up its metrics where its
checkpoint is: what a killed run did after that is done again.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from detectron2.utils.events import EventWriter
from detectron2.utils.logger import setup_logger

from ...files import writing
from ...text import printable_record
from ..diagnosis.run_errors import LOGGERS
from ..launch.torchrun import process_rank

__all__ = ["LateWriter", "cut_metrics", "protected_log_files", "show_log"]

logger = logging.getLogger(__name__)

_ROOM = 1 << 20  # bytes


class LateWriter(EventWriter):
    """A writer that is built when it first writes, and whose failures are logged and survived.

    It does not write where the disk has less than 1 MiB left: TensorBoard's writer would fail in a
    thread of its own, out of reach.

    Args:
        build: gives Detectron2's writer.
        folder: where it writes.
        what: its files' name, for the message.
    """

    def __init__(self, build: Callable[[], EventWriter], folder: str | os.PathLike, what: str):
        self._build = build
        self._folder = folder
        self._what = what
        self._writer: EventWriter | None = None
        self._failing = False

    def write(self):
        try:
            local = "://" not in os.fspath(self._folder)
            if local and shutil.disk_usage(self._folder).free < _ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._writer is None:
                self._writer = self._build()
            self._writer.write()
            self._failing = False
        except OSError as error:
            if not self._failing:
                logger.warning(
                    f"{self._what} in {self._folder}: not written, {error}. Training goes on"
                )
            self._failing = True

    def close(self):
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError:
            pass  # write has said it


def cut_metrics(file: str | os.PathLike, start: int) -> None:
    """Remove the lines of iterations from ``start`` on from a ``metrics.json``, and broken lines.

    A file that cannot be written stays as it is; a warning says so.
    """
    path = Path(file)
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if _iteration(line, start) < start]
    if len(kept) == len(lines):
        return
    try:
        with writing(path, "w") as out:
            out.writelines(kept)
    except OSError as error:
        logger.warning(f"{path} still has the metrics after iteration {start - 1}: {error}")


def _iteration(line: str, otherwise: int) -> int:
    """The iteration of a line of metrics; ``otherwise`` for one that a kill has cut short."""
    try:
        return int(json.loads(line)["iteration"]) if line.endswith("\n") else otherwise
    except (ValueError, KeyError, TypeError):
        return otherwise


def show_log(folder: str | None = None) -> None:
    """Show this package's log like Detectron2's: on the terminal, and in ``folder``/log.txt."""
    setup_logger(
        folder,
        distributed_rank=process_rank(),
        name="resnest_d2",
        enable_propagation=True,
        configure_stdout=not logging.getLogger("resnest_d2").handlers,
    )


@contextlib.contextmanager
def protected_log_files() -> Iterator[None]:
    """Make the logs that are opened in a block safe: nothing unprintable, and no failure.

    Names in files may hold terminal escapes. A log file goes quiet where it cannot be written:
    one line on the terminal says so. Python would print a traceback for every message, and another
    one for the file when it ends.
    """
    before = logging.raiseExceptions
    logging.raiseExceptions = False
    try:
        yield
    finally:
        logging.raiseExceptions = before
        for name in LOGGERS:
            for handler in logging.getLogger(name).handlers:
                handler.addFilter(printable_record)
                if getattr(handler, "stream", None) not in (None, sys.stdout, sys.stderr):
                    handler.handleError = _QuietFailure(handler)


class _QuietFailure:
    """In place of a handler's ``handleError``."""

    def __init__(self, handler: logging.StreamHandler):
        self._handler = handler

    def __call__(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logging.Handler.handleError(self._handler, record)
            return
        stream = self._handler.stream
        print(f"{stream.name} is not written any more: {error}", file=sys.stderr)
        # What the stream still holds, and all later messages, have a place to go.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

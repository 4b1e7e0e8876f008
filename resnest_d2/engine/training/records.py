"""Metrics and logs of a run; no failure here ends it.

On a full disk only a missing checkpoint is a failure. Metrics and log lines are lost until there is
room, with one message. A resumed run removes the metrics after its checkpoint: it repeats these
iterations.
"""

import argparse
import contextlib
import errno
import functools
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils.events import EventWriter
from detectron2.utils.logger import setup_logger

from ...data.batches.randomness import kept_generators
from ...files import writing
from ...text import printable_record
from ..diagnosis.run_errors import LOGGERS, hide_explained, only_warnings
from ..launch.torchrun import process_rank
from ..prepare.request import RunRequest

logger = logging.getLogger(__name__)

_ROOM = 1 << 20  # bytes


class LateWriter(EventWriter):
    """A writer that is built at the first write, and only logs its failures.

    It does not write if less than 1 MiB is free: TensorBoard's writer would fail in a thread of its
    own, where its error cannot be caught.

    Args:
        build: gives Detectron2's writer.
        what: name of its files, for the message.
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
        with contextlib.suppress(OSError):  # write has logged it
            if self._writer is not None:
                self._writer.close()


def cut_metrics(file: str | os.PathLike, start: int) -> None:
    """Remove the lines of iterations from ``start`` on from a ``metrics.json``, and broken lines.

    If that fails, a warning is logged.
    """

    def iteration(line: str) -> int:
        try:
            return int(json.loads(line)["iteration"]) if line.endswith("\n") else start
        except (ValueError, KeyError, TypeError):  # cut short by a kill
            return start

    path = Path(file)
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if iteration(line) < start]
    if len(kept) == len(lines):
        return
    try:
        with writing(path, "w") as out:
            out.writelines(kept)
    except OSError as error:
        logger.warning(f"{path} still has the metrics after iteration {start - 1}: {error}")


def show_log(folder: str | None = None, messages: Iterable[logging.LogRecord] = ()) -> None:
    """Show this package's log like Detectron2's: on the terminal, and in ``folder``/log.txt.

    Args:
        messages: earlier ones, for the file alone.
    """
    setup_logger(
        folder,
        distributed_rank=process_rank(),
        name="resnest_d2",
        enable_propagation=True,
        configure_stdout=not logging.getLogger("resnest_d2").handlers,
    )
    for handler in logging.getLogger("resnest_d2").handlers:
        if _writes_file(handler):
            for record in messages:
                handler.handle(record)


def _writes_file(handler: logging.Handler) -> bool:
    return getattr(handler, "stream", None) not in (None, sys.stdout, sys.stderr)


def set_up_process(cfg: Any, request: RunRequest) -> None:
    """Detectron2's ``default_setup`` of logs and seeds; call :func:`show_log` before."""
    arguments = {**vars(request), "config_file": ""}  # Detectron2 would log the file
    if isinstance(request.config, CfgNode):
        arguments["config"] = "given as an object"
    with protected_log_files():
        default_setup(cfg, argparse.Namespace(**arguments))
    hide_explained()


@contextlib.contextmanager
def _restored_process() -> Iterator[None]:
    """Restore logging, random generators and cuDNN's settings at the end of a run.

    Detectron2 adds handlers for each output folder to the same loggers: a second run in the same
    process would print each line twice, and write into the log of the first one.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(log.handlers[:], log.level, log.propagate) for log in loggers]
    benchmark = torch.backends.cudnn.benchmark
    for log in loggers:  # the run adds its own
        for handler in log.handlers[:]:
            if type(handler) is logging.StreamHandler and handler.stream is sys.stdout:
                log.removeHandler(handler)
    setup_logger.cache_clear()  # else it would not add its handlers again
    try:
        with kept_generators():
            yield
    finally:
        for log, (handlers, level, propagate) in zip(loggers, before, strict=True):
            for handler in log.handlers:
                if handler not in handlers:  # the streams of earlier ones may be closed
                    handler.flush()
            log.handlers[:] = handlers
            log.setLevel(level)
            log.propagate = propagate
        setup_logger.cache_clear()
        torch.backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def shown_log(quiet: bool = False) -> Iterator[None]:
    """Show this package's log in a block, with ``quiet`` only warnings and errors."""
    with _restored_process(), only_warnings(quiet):
        show_log()
        yield


@contextlib.contextmanager
def protected_log_files() -> Iterator[None]:
    """Make the logs that are opened in a block safe: they write printable characters only, and a
    log file that cannot be written is replaced by one line on the terminal.

    Names in files may hold terminal escapes. For a full disk Python would print a traceback for
    every message.
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
                if _writes_file(handler):
                    handler.handleError = functools.partial(_handle_quietly, handler)


def _handle_quietly(handler: logging.StreamHandler, record: logging.LogRecord) -> None:
    """In place of a handler's ``handleError``."""
    error, stream = sys.exc_info()[1], handler.stream
    if not isinstance(error, OSError):
        logging.Handler.handleError(handler, record)
        return
    print(f"{stream.name} is not written any more: {error}", file=sys.stderr)
    nowhere = os.open(
        os.devnull, os.O_WRONLY
    )  # for what the stream still holds, and later messages
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)

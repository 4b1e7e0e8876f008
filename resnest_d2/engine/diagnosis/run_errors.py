"""Why a run failed, in words for whoever started it.

A failure that a user can do something about is shown in one message; its traceback goes to
``OUTPUT_DIR/log.txt`` alone. Whatever is not explained here is a bug, and shown with its traceback.
"""

import contextlib
import errno
import io
import logging
import re
import signal
import sys
import traceback
from collections.abc import Iterator

import torch
import torch.distributed as dist

from detectron2.engine import TrainerBase
from detectron2.utils import comm

__all__ = [
    "LOGGERS",
    "RunError",
    "end_soon",
    "explain",
    "hide_explained",
    "is_lost_peer",
    "log_failure",
    "only_warnings",
]

logger = logging.getLogger(__name__)

LOST_PEER = "another process of this run has died, and this one cannot go on without it"

_PACKAGE = __name__.partition(".")[0]
LOGGERS = ("detectron2", "fvcore", _PACKAGE)
"""What a run logs with."""

_PEER_GONE = re.compile(
    r"gloo/transport|Connection (closed|reset) by peer|Broken pipe|ncclRemoteError|"
    r"remote process exited|NCCL communicator was aborted|failed to recv, got 0 bytes"
)
_FROM_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.")


class RunError(RuntimeError):
    """A run cannot go on; the message is meant for the user."""


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error only says that another process of the group is gone."""
    return isinstance(error, RuntimeError) and bool(_PEER_GONE.search(str(error)))


def explain(error: BaseException) -> str | None:
    """The message that a failure is shown by; None: it is a bug, show its traceback.

    Explained are the failures of the machine (files, memory, processes) and what this package
    raised itself.
    """
    if isinstance(error, (RunError, FloatingPointError)):
        return str(error)
    if is_lost_peer(error):
        return LOST_PEER
    if isinstance(error, (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)):
        return f"the processes of this run do not reach each other: {_first_line(error)}"
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return (
            f"{_first_line(error)} The GPU's memory is full: lower SOLVER.IMS_PER_BATCH (with "
            "RESNEST.ACCUMULATE a step keeps its images), set RESNEST.AMP_DTYPE 'auto', or see "
            "RESNEST.RECOMPUTE_NORM and RESNEST.ACTIVATION_CHECKPOINTING"
        )
    if isinstance(error, MemoryError):
        return f"the memory is full: {error or 'no more could be had'}"
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        return _message(error) + (" (the disk is full: make room)" if full else "")
    if isinstance(error, ValueError) and _raised_here(error):
        return _message(error)
    return None


def hide_explained() -> None:
    """Keep the tracebacks of explained failures off the terminal; the files get them."""
    for name in LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                handler.addFilter(_is_no_explained_traceback)


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def only_warnings(wanted: bool) -> Iterator[None]:
    """Show nothing but warnings and errors, on stderr; log files that are opened inside get all.

    Handlers that write to stdout have to be added inside, too.
    """
    if not wanted or isinstance(sys.stdout, _Nowhere):
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in LOGGERS if comm.is_main_process()]
    for log in loggers:
        log.addHandler(handler)
    try:
        with contextlib.redirect_stdout(_Nowhere()):
            yield
    finally:
        for log in loggers:
            log.removeHandler(handler)


def log_failure(error: Exception) -> None:
    """Give a failure's traceback to the log files, unless Detectron2's loop has done so."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    if not any(frame.f_code is TrainerBase.train.__code__ for frame in frames):
        logger.error("The run failed:", exc_info=error)


def end_soon(seconds: int = 20) -> None:
    """Have the kernel end this process, should its way out hang in a library.

    PyTorch's process groups can: some wait for their threads when a peer is gone.
    """
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _is_no_explained_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return error is None or explain(error) is None


def _raised_here(error: BaseException) -> bool:
    """Whether this package raised it, rather than something that it called."""
    if _FROM_WORKER.match(str(error)):
        return False  # raised anew in this process, by PyTorch
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith(_PACKAGE)


def _message(error: BaseException) -> str:
    """An error's own words; of one from a data-loading process, without the traceback in it."""
    text = str(error)
    if _FROM_WORKER.match(text):
        text = text.rstrip().rpartition("\n")[2]
    return text


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]

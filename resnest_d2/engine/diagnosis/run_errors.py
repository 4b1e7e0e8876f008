"""Messages for the failures of a run.

A failure that a user can mend is shown in one message; its traceback is only in
``OUTPUT_DIR/log.txt``. Other failures are bugs, and shown with their traceback.
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

logger = logging.getLogger(__name__)

LOST_PEER = "another process of this run has died, and this one cannot go on without it"

_PACKAGE = __name__.partition(".")[0]
LOGGERS = ("detectron2", "fvcore", _PACKAGE)
"""The loggers of a run."""

_PEER_GONE = re.compile(
    r"gloo/transport|Connection (closed|reset) by peer|Broken pipe|ncclRemoteError|"
    r"remote process exited|NCCL communicator was aborted|failed to recv, got 0 bytes"
)
_FROM_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.")


class RunError(RuntimeError):
    """A run cannot go on; the message is for the user."""


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error only says that another process of the group is gone."""
    return isinstance(error, RuntimeError) and bool(_PEER_GONE.search(str(error)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine or of the GPU is full."""
    kinds = (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def explain(error: BaseException) -> str | None:
    """The message for a failure; None: it is a bug, show its traceback.

    Explained are failures of the machine (files, memory, processes), and errors that this package
    raised itself.
    """
    if isinstance(error, (RunError, FloatingPointError)):
        return str(error)
    if is_lost_peer(error):
        return LOST_PEER
    if isinstance(error, (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)):
        return f"the processes of this run do not reach each other: {first_line(error)}"
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return (
            f"{first_line(error)} The GPU's memory is full: lower SOLVER.IMS_PER_BATCH (with "
            "RESNEST.ACCUMULATE a step keeps its images), set RESNEST.AMP_DTYPE 'auto', or see "
            "RESNEST.RECOMPUTE_NORM and RESNEST.ACTIVATION_CHECKPOINTING"
        )
    if is_out_of_memory(error):
        return f"the memory is full: {first_line(error) or 'none is available'}"
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        return _message(error) + (" (the disk is full: make room)" if full else "")
    if isinstance(error, ValueError) and _raised_here(error):
        return _message(error)
    return None


def hide_explained() -> None:
    """Keep the tracebacks of explained failures off the terminal; log files get them."""

    def is_shown(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return error is None or explain(error) is None

    for name in LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                handler.addFilter(is_shown)


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def only_warnings(wanted: bool) -> Iterator[None]:
    """Show only warnings and errors, on stderr. Log files get all.

    Log files and handlers for stdout must be opened inside.
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
    """Write a failure's traceback to the log files, unless Detectron2's loop has done so."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    if not any(frame.f_code is TrainerBase.train.__code__ for frame in frames):
        logger.error("The run failed:", exc_info=error)


def end_soon(seconds: int = 20) -> None:
    """Let the kernel end this process if it hangs on exit: PyTorch's process groups may wait
    for their threads when another process is gone.
    """
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _raised_here(error: BaseException) -> bool:
    """Whether this package raised it, not a library."""
    if _FROM_WORKER.match(str(error)):
        return False  # PyTorch raises a copy in this process
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith(_PACKAGE)


def _message(error: BaseException) -> str:
    """An error's text, without the traceback that PyTorch adds in a data-loading process."""
    text = str(error)
    return text.rstrip().rpartition("\n")[2] if _FROM_WORKER.match(text) else text


def first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]

"""One training at a time in a folder.

Two would write the same ``metrics.json`` and remove each other's temporary files. The lock is the
operating system's: it ends with the process that holds it, however that ends. A file beside it says
who that is. Evaluation into the folder of a run that trains is free.
"""

import contextlib
import datetime
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..prepare.request import RunRequest
from .torchrun import process_rank

__all__ = ["check_unlocked", "locked"]

logger = logging.getLogger(__name__)

_LOCK, _HOLDER = ".training.lock", ".training"
_PATIENCE = 5  # seconds: data workers of a run that was killed may hold its lock until they notice


def check_unlocked(key: str, folder: str, request: RunRequest) -> None:
    """Raise a FileExistsError where another process trains in ``folder``, the value of ``key``."""
    if _is_first(request) and os.path.exists(os.path.join(folder, _LOCK)):
        with locked(key, folder, request):
            pass


@contextlib.contextmanager
def locked(key: str, folder: str, request: RunRequest) -> Iterator[None]:
    """Keep other trainings out of ``folder``; the first process of a training does.

    Where the file system has no locks, a warning says so.

    Raises:
        FileExistsError: another process trains there; the message says which.
    """
    if not _is_first(request) or "://" in folder:
        yield
        return
    holder = Path(folder, _HOLDER)
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(folder, exist_ok=True)
            stack.enter_context(FileLock(os.path.join(folder, _LOCK), timeout=_PATIENCE))
            holder.write_text(
                f"process {os.getpid()} on {socket.gethostname()} (since "
                f"{datetime.datetime.now().isoformat(' ', timespec='seconds')})"
            )
            stack.callback(holder.unlink, missing_ok=True)
        except Timeout:
            raise FileExistsError(
                f"{key} {folder} is in use: {_read(holder)} trains there. Choose another {key}, or "
                "wait for its end; --resume then goes on with it"
            ) from None
        except (OSError, NotImplementedError) as error:  # writing what is trained says more
            logger.warning(
                f"{key} {folder} cannot be locked ({error}): see to it that no other training "
                "writes there"
            )
        yield


def _is_first(request: RunRequest) -> bool:
    return not request.eval_only and request.machine_rank == 0 and process_rank() == 0


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8", errors="replace")[:200].strip() or "a process"
    except OSError:
        return "another process"

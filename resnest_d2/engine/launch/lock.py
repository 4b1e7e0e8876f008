"""One training at a time in a folder.

Two would write the same ``metrics.json`` and remove each other's temporary files. The lock is the
operating system's: it ends with the process that holds it, even if that is killed. A file beside
the lock says which process holds it. Evaluation into the folder of a running training is allowed.
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

logger = logging.getLogger(__name__)

_LOCK, _HOLDER = ".training.lock", ".training"
_PATIENCE = 5  # seconds: data workers of a killed run may hold its lock until they notice


def check_unlocked(key: str, folder: str, request: RunRequest) -> None:
    """Raise a FileExistsError where another process trains in ``folder``, the value of ``key``."""
    if os.path.exists(os.path.join(folder, _LOCK)):
        with locked(key, folder, request):
            pass


@contextlib.contextmanager
def locked(key: str, folder: str, request: RunRequest) -> Iterator[None]:
    """Keep other trainings out of ``folder``; only the first process of a training does so.

    On a file system without locks, a warning is logged instead.

    Raises:
        FileExistsError: another process trains there; the message says which.
    """
    first = request.machine_rank == 0 and process_rank() == 0
    if request.eval_only or not first or "://" in folder:
        yield
        return
    holder = Path(folder, _HOLDER)
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(folder, exist_ok=True)
            stack.enter_context(FileLock(os.path.join(folder, _LOCK), timeout=_PATIENCE))
            since = datetime.datetime.now().isoformat(" ", timespec="seconds")
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()} (since {since})")
            stack.callback(holder.unlink, missing_ok=True)
        except Timeout:
            raise FileExistsError(
                f"{key} {folder} is in use: {_read(holder)} trains there. Choose another {key}, or "
                "wait for its end; --resume then goes on with it"
            ) from None
        except (OSError, NotImplementedError) as error:  # a full disk is reported by the training
            logger.warning(
                f"{key} {folder} cannot be locked ({error}): make sure that no other training "
                "writes there"
            )
        yield


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8", errors="replace")[:200].strip() or "a process"
    except OSError:
        return "another process"

"""Errors of reading data, raised in the process that trains or evaluates.

A data worker's exception reaches that process as a long text with the worker's stack in it, without
the image and without advice. Here a mapper's exception is a value in the batch instead, and is
raised when the batch arrives: one sentence with the file, the image id and what to do. What kills a
worker altogether is explained with its likely causes. A batch that does not fit into shared memory
would not even be an exception: it is lost in a thread of the worker's queue, and training waits for
ever. So the worker fills the shared memory itself, where the error is caught.
"""

import contextlib
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import get_worker_info

from detectron2.utils.serialize import PicklableWrapper

from ..image_reader import ImageError
from .packing import pack, unpack

_WORKER_REMEDY = (
    "Likely causes: the machine is out of memory, or /dev/shm is full (in a container: raise "
    "--shm-size). Lower DATALOADER.NUM_WORKERS (0 reads without workers); training goes on with "
    "--resume"
)


class DataWorkerError(RuntimeError):
    """A process that reads data died, or cannot hand over what it read."""


@dataclass(frozen=True)
class Failure:
    """An error in a batch, in place of an example: what to raise, and its cause."""

    error: Exception
    cause: Exception | None = None

    @classmethod
    def of_record(cls, record: Any, cause: Exception) -> "Failure":
        """Of a data set's record that cannot be read or mapped."""
        record = record if isinstance(record, Mapping) else {}
        unread = isinstance(cause, ImageError)
        file = cause.path if unread else getattr(cause, "filename", None)
        file = file or record.get("file_name", "a file without a name")
        where = f"{file} (image id {record.get('image_id', 'unknown')})"
        remedy = "or take the image out of its data set; training goes on with --resume"
        if isinstance(cause, MemoryError) or isinstance(cause.__cause__, MemoryError):
            error = DataWorkerError(f"{where}: no memory left to read it. {_WORKER_REMEDY}")
        elif isinstance(cause, FileNotFoundError):
            error = FileNotFoundError(f"{where} is not there any more: restore it, {remedy}")
        elif unread or isinstance(cause, OSError):
            reason = cause.reason if unread else cause.strerror or cause
            error = OSError(f"{where} cannot be read: {reason}. Restore the file, {remedy}")
        else:
            kind = ValueError if isinstance(cause, ValueError) else RuntimeError
            what = f"{type(cause).__name__}: {cause}"
            error = kind(f"{where} cannot be used: {what}. Correct it, {remedy}")
        return cls(error, cause if get_worker_info() is None else _for_sending(cause))


def _for_sending(error: Exception) -> Exception:
    """The error itself where it can be pickled and is of a file, else its text and stack."""
    with contextlib.suppress(Exception):
        sent = pickle.loads(pickle.dumps(error))
        if isinstance(sent, (OSError, ImageError)):
            return sent
    return RuntimeError(f"in a data worker:\n{''.join(traceback.format_exception(error))}")


class NamedErrors:
    """A mapper whose exceptions are returned, each as a :class:`Failure`."""

    def __init__(self, mapper: Callable[[Any], Any]):
        self._mapper = PicklableWrapper(mapper)

    def __call__(self, record: Any) -> Any:
        try:
            return self._mapper(record)
        except Exception as error:
            return Failure.of_record(record, error)


def hand_over(batch: list) -> list | bytes:
    """A collate function: the list as it is; from a worker, in bytes and shared memory."""
    if get_worker_info() is None:
        return batch
    try:
        return pack(batch)
    except (OSError, RuntimeError) as error:
        reason = f"a data worker cannot hand over its batch: {error}. {_WORKER_REMEDY}"
        return pack([Failure(DataWorkerError(reason))])


class CheckedLoader:
    """The batches of a loader that collates with :func:`hand_over`; failures are raised."""

    def __init__(self, loader: Iterable[list | bytes]):
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list]:
        with explained_worker_errors():
            for batch in self._loader:
                try:
                    batch = unpack(batch) if isinstance(batch, bytes) else batch
                except (
                    EOFError,
                    OSError,
                    RuntimeError,
                ) as error:  # its worker must live until here
                    reason = f"a batch cannot be taken over from its data worker: {error}"
                    raise DataWorkerError(
                        f"{reason}. {_WORKER_REMEDY}; or too many files are open (ulimit -n)"
                    ) from error
                for example in batch:
                    if isinstance(example, Failure):
                        raise example.error from example.cause
                yield batch


@contextlib.contextmanager
def explained_worker_errors() -> Iterator[None]:
    """Raise a :class:`DataWorkerError` where PyTorch says that a data worker died.

    It says so by a signal handler, at any moment: not only where batches are taken.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not text.startswith("DataLoader worker (pid"):
            raise
        sentence = text.partition(". ")[0]
        raise DataWorkerError(f"{sentence}. {_WORKER_REMEDY}") from error

"""Stopping by a job scheduler's signal: save first, then end with a special exit code."""

import contextlib
import logging
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from multiprocessing import util

from detectron2.engine import HookBase
from detectron2.utils import comm

from resnest_d2_command.signals import STOP_SIGNALS, STOPPED

from ...checkpoint import RunCheckpointer

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """The signals wait until the block ends; processes that are started in it never get them.

    A scheduler sends them to every process of a job. Data workers must survive them, or the
    iteration cannot end. SIGTERM is also how PyTorch ends the workers at the end of this process:
    they are killed instead.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    children = set(multiprocessing.active_children())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        started = set(multiprocessing.active_children()) - children
        util.Finalize(None, _kill, args=(started,), exitpriority=100)  # before they are waited for
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(processes: set[multiprocessing.Process]) -> None:
    for process in processes:
        if process.is_alive():
            process.kill()


class StopOnSignal(HookBase):
    """After SIGTERM or SIGUSR1, saves a checkpoint and raises ``SystemExit(75)``.

    It does so at the end of the iteration, in all processes at once, whichever got the signal. If
    the iteration was saved already, its evaluation is not waited for: a resumed run repeats it.
    Python installs signal handlers in the main thread only; in another one the hook installs none.

    Register it after the periodic checkpointer and before the hook that evaluates.

    Args:
        period: iterations between periodic checkpoints.
    """

    def __init__(self, checkpointer: RunCheckpointer, period: int):
        self._checkpointer = checkpointer
        self._period = period
        self._received = ""  # name of the signal
        self._saved = False  # whether nothing is lost if the run ends now
        self._stopped = False
        self._previous: dict[int, object] = {}

    def before_train(self):
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        self._saved = self.trainer.start_iter > 0

    def before_step(self):
        self._saved = False

    def after_step(self):
        iteration = self.trainer.iter
        periodic = (iteration + 1) % self._period == 0 or iteration + 1 >= self.trainer.max_iter
        received = next(filter(None, comm.all_gather(self._received)), "")
        if received:
            self._received = received
            if not periodic:
                self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
            comm.synchronize()  # torchrun ends all processes when the first one exits
            self._stop()
        self._saved = periodic
        if self._saved and self._received:  # it came after the gather
            self._stop()

    def restore(self) -> None:
        """Restore the former signal handlers, after the training."""
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()
        if self._stopped:
            logger.warning(
                f"{self._received} at iteration {self.trainer.iter}: saved and stopped, with exit "
                f"code {STOPPED}. --resume goes on from here"
            )

    def _receive(self, number: int, frame) -> None:
        self._received = signal.Signals(number).name
        if self._saved and not self._stopped:  # a second signal does not disturb the first
            self._stop()

    def _stop(self) -> None:
        self._stopped = True
        raise SystemExit(STOPPED)

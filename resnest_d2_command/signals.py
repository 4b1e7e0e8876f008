"""How a command ends by a signal while nothing of it is lost: said in one line, with its exit code.

PyTorch's import takes seconds, and checks, weights and data may take minutes before the first
iteration. A training that SIGTERM or SIGUSR1 ends there has nothing to save, and ends as one that
has saved does: a job scheduler starts it again either way.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence

__all__ = ["INTERRUPTED", "STOPPED", "STOP_SIGNALS", "ended_by_signals", "say_stopped"]

STOPPED = 75
"""Exit code of a training that SIGTERM or SIGUSR1 has stopped: ``--resume`` goes on with it.

``EX_TEMPFAIL`` of ``sysexits.h``: try again later.
"""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell gives it."""

# The second is Slurm's usual warning before a job's end; Windows lacks it.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


@contextlib.contextmanager
def ended_by_signals(arguments: Sequence[str], *, importing: bool = False) -> Iterator[None]:
    """Obey the stop signals of a training until its own hook does, which saves first.

    Handlers of others, and signals that are to be ignored, stay as they are.

    Args:
        arguments: of ``resnest-d2``.
        importing: end at once, by Ctrl-C too: many imports turn what a handler raises into errors
            of their own.
    """
    training = [*arguments[:1]] == ["train"] and "--eval-only" not in arguments
    process, previous = os.getpid(), {}

    def end(number: int, frame) -> None:
        if os.getpid() != process:  # a copy of it, such as a data worker: no business of ours
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif number == signal.SIGINT:
            _say("error: interrupted")
            os._exit(INTERRUPTED)
        else:
            say_stopped(number)
            if importing:
                os._exit(STOPPED)
            raise SystemExit(STOPPED)

    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS if training else ():
            if signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, end)
        if importing and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            previous[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def say_stopped(number: int) -> None:
    """Say that a stop signal has ended the training while nothing was left to save."""
    _say(
        f"{signal.Signals(number).name}: stopped with nothing left to save, with exit code "
        f"{STOPPED}. --resume goes on from the last checkpoint, or begins where there is none"
    )


def _say(text: str) -> None:
    # Not print(): a handler may interrupt one.
    os.write(2, f"resnest-d2: {text}\n".encode())

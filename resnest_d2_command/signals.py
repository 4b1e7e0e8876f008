"""Signals that end a command before it has done anything: exit code and one line of explanation.

Importing PyTorch takes seconds, and checking data and weights may take minutes before the first
iteration. A training that is stopped there by SIGTERM or SIGUSR1 has nothing to save, and exits
like one that has saved, so that a job scheduler starts it again.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence

STOPPED = 75
"""Exit code of a training that SIGTERM or SIGUSR1 has stopped: ``--resume`` continues it.

``EX_TEMPFAIL`` of ``sysexits.h``: try again later.
"""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in a shell."""

# SIGUSR1 is Slurm's usual warning before the end of a job; Windows does not have it.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


@contextlib.contextmanager
def ended_by_signals(arguments: Sequence[str], *, importing: bool = False) -> Iterator[None]:
    """Obey the stop signals of a training until its own hook does, which saves first, and those of
    a study, which stops its trainings.

    Signals that have another handler or are ignored are not changed.

    Args:
        arguments: of ``resnest-d2``.
        importing: exit at once, also for Ctrl-C, because many imports convert exceptions of a
            handler to errors of their own.
    """
    study = [*arguments[:1]] == ["study"]
    stops = study or ([*arguments[:1]] == ["train"] and "--eval-only" not in arguments)
    process, previous = os.getpid(), {}

    def end(number: int, frame) -> None:
        if os.getpid() != process:  # a forked process, such as a data worker
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif number == signal.SIGINT:
            _say("error: interrupted")
            os._exit(INTERRUPTED)
        else:
            say_stopped(number, study=study)
            if importing:
                os._exit(STOPPED)
            raise SystemExit(STOPPED)

    if threading.current_thread() is threading.main_thread():
        wanted = dict.fromkeys(STOP_SIGNALS if stops else (), signal.SIG_DFL)
        if importing:
            wanted[signal.SIGINT] = signal.default_int_handler
        for number, default in wanted.items():
            if signal.getsignal(number) is default:
                previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def say_stopped(number: int, *, study: bool = False) -> None:
    """Say that a stop signal has ended the training with nothing left to save, or a study."""
    what = "stopped with nothing left to save"
    advice = "--resume goes on from the last checkpoint, or begins where there is none"
    if study:
        what, advice = "the trainings stop and save", "The same command goes on"
    _say(f"{signal.Signals(number).name}: {what}, with exit code {STOPPED}. {advice}")


def _say(text: str) -> None:
    # Not print(), which the handler may have interrupted.
    os.write(2, f"resnest-d2: {text}\n".encode())

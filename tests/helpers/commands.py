"""The command in processes of its own, as a user starts it: alone, or under torchrun."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import resnest_d2

PACKAGES = str(Path(resnest_d2.__file__).resolve().parents[1])

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(arguments: list, log: Path, *, in_background: bool = False) -> subprocess.Popen:
    """Start ``python ARGUMENTS`` with one thread; its output goes to ``log``.

    A shell starts ``command &`` in a script as ``in_background`` does: it ignores SIGINT.
    """
    interrupt = signal.SIG_IGN if in_background else signal.SIG_DFL
    names = [n for n in os.environ if n.startswith(("RANK", "WORLD_", "LOCAL_", "TORCHELASTIC_"))]
    environment = {k: v for k, v in os.environ.items() if k not in names}
    paths = [PACKAGES, environment.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONFAULTHANDLER": "1"}
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=file,
            stderr=file,
            env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt),
        )
    process.log = log
    return process


def finish(process: subprocess.Popen, *, timeout: float = 300) -> int:
    """Its exit code. If it does not end in time, the test fails and shows where it and its
    children are."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        _end([*descendants(process.pid), process.pid], signal.SIGABRT)
        raise AssertionError(f"no end in {timeout} s:\n{process.log.read_text()[-9000:]}") from None
    finally:
        if process.poll() is None:
            _end([*descendants(process.pid), process.pid], signal.SIGKILL)


def _end(pids: list[int], number: int) -> None:
    """End processes, the first ones first. At SIGABRT, Python writes where its threads are."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            time.sleep(1 if number == signal.SIGABRT else 0)


def wait_for(condition: Callable, process: subprocess.Popen, log: Path, *, timeout: float = 120):
    """What ``condition()`` gives as soon as it is true, while the process runs."""
    limit = time.monotonic() + timeout
    while time.monotonic() < limit and process.poll() is None:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"it did not happen:\n{log.read_text()[-5000:]}")


def descendants(pid: int) -> list[int]:
    """All processes that a process has started, and those that they have (Linux)."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in file.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

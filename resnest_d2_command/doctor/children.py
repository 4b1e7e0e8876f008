"""Runs the probes in child processes, which may crash or hang without ending the doctor.

One child runs all steps, so that PyTorch is imported once. If it crashes or hangs, the step that it
was running has failed, and a new child continues with the next step.
"""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

_CODE = """
import json, sys
path, steps, failed = json.loads(sys.argv[1])
sys.path[:] = path
from resnest_d2_command.doctor.probes import main
main(steps, failed)
"""


@dataclass(frozen=True)
class Outcome:
    """The result of a step.

    Attributes:
        facts: what it found.
        error: type and text of an exception, or how the process ended; empty if the step worked.
        needs: the failed step because of which this one was not tried.
    """

    facts: dict = field(default_factory=dict)
    error: str = ""
    needs: str = ""

    @property
    def worked(self) -> bool:
        return not self.error and not self.needs


def run_steps(
    steps: list[str],
    *,
    timeout: float = 90,
    begins: Callable[[str], None] = lambda step: None,
) -> dict[str, Outcome]:
    """Run all steps.

    Args:
        steps: names of :mod:`~resnest_d2_command.doctor.probes`, in this order.
        timeout: of one step, seconds.
        begins: called with the name of each step that begins.
    """
    outcomes: dict[str, Outcome] = {}
    while len(outcomes) < len(steps):
        error = _run_child(steps, outcomes, timeout, begins)
        unfinished = next((step for step in steps if step not in outcomes), None)
        if unfinished:
            outcomes[unfinished] = Outcome(error=error)
    return outcomes


def _run_child(
    steps: list[str],
    outcomes: dict[str, Outcome],
    timeout: float,
    begins: Callable[[str], None],
) -> str:
    """Add the outcomes of one child, and return how it ended."""
    failed = {step: done.needs or step for step, done in outcomes.items() if not done.worked}
    rest = [step for step in steps if step not in outcomes]
    hangs = threading.Event()
    with tempfile.TemporaryFile() as messages:
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _CODE, json.dumps([sys.path, rest, failed])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            encoding="utf-8",
        )

        def stop() -> None:
            hangs.set()
            child.kill()

        timer = threading.Timer(timeout, stop)
        timer.start()
        for line in child.stdout:
            timer.cancel()
            record = json.loads(line)
            step = record.pop("step")
            if record:
                outcomes[step] = Outcome(**record)
            else:
                begins(step)
            timer = threading.Timer(timeout, stop)
            timer.start()
        code = child.wait()
        timer.cancel()
        child.stdout.close()
        messages.seek(0)
        printed = messages.read().decode(errors="replace").strip().splitlines()
    if hangs.is_set():
        return f"does not end (stopped after {timeout:g} s)"
    if code < 0:
        name = f"signal {-code}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
        return f"crashes the process ({name})"
    return f"ends the process with exit code {code}" + (f": {printed[-1]}" if printed else "")

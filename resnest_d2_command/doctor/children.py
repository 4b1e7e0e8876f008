"""Runs the probes in child processes, which may crash or hang without ending the doctor.

One child tries all steps, so that PyTorch is imported once. Where it dies or stands still, the step
that it was at has failed, and another child goes on behind it.
"""

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Outcome", "run_steps"]

_CODE = """
import json, sys
path, steps, failed = json.loads(sys.argv[1])
sys.path[:] = path
from resnest_d2_command.doctor.probes import main
main(steps, failed)
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a step: ``error`` is empty where it worked.

    Attributes:
        facts: what it found.
        error: an exception's type and text, or how the process ended.
        needs: the step because of whose own failure it was not tried.
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
    """Try all steps.

    Args:
        steps: names of :mod:`~resnest_d2_command.doctor.probes`, in this order.
        timeout: seconds that one step may take.
        begins: told of each step that is begun.
    """
    outcomes: dict[str, Outcome] = {}
    remaining = list(steps)
    while remaining:
        failed = {
            step: outcome.needs or step for step, outcome in outcomes.items() if not outcome.worked
        }
        new = _one_child(remaining, failed, timeout, begins)
        outcomes.update(new)
        remaining = [step for step in remaining if step not in outcomes]
    return outcomes


def _one_child(
    steps: list[str], failed: dict[str, str], timeout: float, begins: Callable[[str], None]
) -> dict[str, Outcome]:
    """The outcomes of the steps up to the child's end: of one at least."""
    argument = json.dumps([sys.path, steps, failed])
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryFile() as messages:
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _CODE, argument],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            encoding="utf-8",
        )
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
        reader.start()
        at, hangs = steps[0], False
        while True:
            try:
                line = lines.get(timeout=timeout)
            except queue.Empty:
                hangs = True
                child.kill()
                break
            if line is None:
                break
            record = json.loads(line)
            at = record.pop("step")
            if record:
                outcomes[at] = Outcome(**record)
            else:
                begins(at)
        code = child.wait()
        messages.seek(0)
        said = messages.read().decode(errors="replace").strip().splitlines()
    if at not in outcomes or not outcomes:
        outcomes[at] = Outcome(error=_ending(code, said, timeout if hangs else None))
    elif len(outcomes) < len(steps):  # it died between two steps
        rest = next(step for step in steps if step not in outcomes)
        outcomes[rest] = Outcome(error=_ending(code, said, timeout if hangs else None))
    return outcomes


def _read(stream, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _ending(code: int, said: list[str], timeout: float | None) -> str:
    if timeout is not None:
        return f"does not come to an end (stopped after {timeout:g} s)"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"crashes the process ({name})"
    return f"ends the process with exit code {code}" + (f": {said[-1]}" if said else "")

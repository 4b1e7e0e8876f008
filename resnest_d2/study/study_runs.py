"""Running a study: several trainings at a time, each a process, and what is done already.

A run is done when its ``results.json`` is there, which ``train`` writes last. All others are begun
or resumed, so that a study which was stopped at any point goes on, on another machine too.
"""

import collections
import contextlib
import ctypes
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnest_d2_command.signals import STOPPED

from ..benchmark import describe_environment
from ..files import write_text
from .runs_table import finished_runs, main_metrics, write_table
from .study_file import StudyPlan, StudyRun

COMMAND = [sys.executable, "-m", "resnest_d2.cli"]
"""``resnest-d2``, of this installation."""

_PAUSE = 0.2  # seconds between two looks at the processes
_REFUSED = 2  # exit code


@dataclass
class RunRecord:
    """What is remembered of a run.

    Attributes:
        arguments: it was begun with, as on a command line.
        seconds: of the processes that ended by themselves, all together.
        processors: names of the CPUs that it ran on.
    """

    arguments: str
    seconds: float = 0.0
    processors: list[str] = field(default_factory=list)


class _Records:
    """The records of all runs by name, in a file."""

    def __init__(self, plan: StudyPlan):
        self._file = plan.out / "study.json"
        self.by_name = self._read() if self._file.is_file() else {}
        for run in plan.runs:
            record = self.by_name.get(run.label)
            if record and record.arguments != shlex.join(run.arguments):
                raise ValueError(
                    f"{run.folder} was begun with other arguments: {record.arguments}; now they "
                    f"are {shlex.join(run.arguments)}. Move {plan.out} away, or choose another "
                    "--out"
                )

    def _read(self) -> dict[str, RunRecord]:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return {name: RunRecord(**record) for name, record in content.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._file} is not the record of a study: {error}") from error

    def of(self, run: StudyRun) -> RunRecord:
        return self.by_name.setdefault(run.label, RunRecord(shlex.join(run.arguments)))

    def write(self) -> None:
        content = {name: vars(record) for name, record in sorted(self.by_name.items())}
        write_text(self._file, json.dumps(content, indent=1) + "\n")


def run_study(
    plan: StudyPlan,
    *,
    jobs: int = 1,
    quiet: bool = False,
    say: Callable[[str], object] = print,
) -> int:
    """Run what is not done, then compare.

    Args:
        jobs: number of trainings at a time.
        quiet: say only failures and verdicts.
        say: prints a line.

    Returns:
        An exit code: 0 done; 1 a run, or a comparison, has failed; 2 the input of a run was
        refused; 75 a run was stopped after it had saved.

    Raises:
        ValueError: the folder has runs of another study.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    records = _Records(plan)
    waiting = collections.deque(run for run in plan.runs if not run.results.is_file())
    done, failed = len(plan.runs) - len(waiting), []
    inform = (lambda text: None) if quiet else say
    inform(f"{len(plan.runs)} runs, {done} of them done")
    write_table(plan, records.by_name)
    running: dict[StudyRun, tuple[subprocess.Popen, float]] = {}
    processor = describe_environment()
    processor = f"{processor['CPU']} ({processor['CPU capability']})"
    with contextlib.ExitStack() as stack:
        stack.callback(_end, running)
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.popleft()
                record = records.of(run)
                record.processors = sorted({*record.processors, processor})
                records.write()
                inform(f"{_clock()} {run.label} {'goes on' if record.seconds else 'begins'}")
                running[run] = _start(run.command, plan, run.folder), time.monotonic()
            time.sleep(_PAUSE)
            for run in [run for run, (process, _) in running.items() if process.poll() is not None]:
                process, start = running.pop(run)
                record = records.of(run)
                record.seconds += time.monotonic() - start
                records.write()
                if process.returncode in (_REFUSED, STOPPED):
                    say(f"{run.label}: {_last_line(run.folder)}")
                    return process.returncode
                if process.returncode or not run.results.is_file():
                    failed.append(run)
                    say(f"{run.label} failed ({process.returncode}): {_last_line(run.folder)}")
                    continue
                done += 1
                metrics = ", ".join(f"{k} {v:.2f}" for k, v in main_metrics(run.results).items())
                left = _time_left(plan, records, jobs)
                inform(
                    f"{_clock()} {run.label}: {_duration(record.seconds)}, {metrics}; {done} of "
                    f"{len(plan.runs)} done, about {left} left"
                )
                write_table(plan, records.by_name)
    if failed:
        say(f"{len(failed)} runs have failed; run the study again to go on with them")
        return 1
    return _compare(plan, say)


def study_record(plan: StudyPlan) -> dict[str, Any]:
    """For JSON: the finished runs, and the verdicts of the comparisons by their folders' names."""
    record: dict[str, Any] = {"runs": finished_runs(plan, _Records(plan).by_name), "verdicts": {}}
    for groups in plan.comparisons:
        file = plan.comparison_folder(groups) / "comparison.json"
        if file.is_file():
            tasks = json.loads(file.read_text(encoding="utf-8"))["tasks"]
            verdicts = {task: found["verdict"] for task, found in tasks.items()}
            record["verdicts"][file.parent.name] = verdicts
    return record


def _compare(plan: StudyPlan, say: Callable[[str], object]) -> int:
    code = 0
    for groups in plan.comparisons:
        for command in plan.comparison_commands(groups):
            folder = plan.comparison_folder(groups)
            if _start(command, plan, folder).wait():
                code = 1
                say(f"{command[0]} {' '.join(groups)} failed: {_last_line(folder)}")
            elif command[0] == "compare":
                say(_last_line(folder))
    return code


def _start(command: Sequence[str], plan: StudyPlan, folder: Path) -> subprocess.Popen:
    """Start ``resnest-d2`` with what it prints appended to a file in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": str(plan.threads)}
    with open(folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            [*COMMAND, *command],
            cwd=plan.folder,
            env=os.environ | threads,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    """Have a training stop, and save, when the study is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end(running: dict[StudyRun, tuple[subprocess.Popen, float]]) -> None:
    """Stop trainings, which save first."""
    for process, _ in running.values():
        process.terminate()
    for process, _ in running.values():
        process.wait()


def _last_line(folder: Path) -> str:
    lines = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def _time_left(plan: StudyPlan, records: _Records, jobs: int) -> str:
    """An estimate from the runs that are done, each group by its own."""
    done: dict[str, list[float]] = collections.defaultdict(list)
    for run in plan.runs:
        if run.results.is_file():
            done[run.group].append(records.of(run).seconds)
    times = {group: sum(seconds) / len(seconds) for group, seconds in done.items()}
    usual = sum(times.values()) / len(times)
    left = [run for run in plan.runs if not run.results.is_file()]
    return _duration(sum(times.get(run.group, usual) for run in left) / jobs)


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _clock() -> str:
    return datetime.datetime.now().strftime("%m-%d %H:%M")

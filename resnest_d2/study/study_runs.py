"""Running a study: several trainings at a time, each a process, and what is done already.

A run is done when its ``results.json`` is there, which ``train`` writes last. All others are begun
or resumed, so that a study which was stopped at any point goes on, on another machine too.
"""

import collections
import ctypes
import datetime
import json
import os
import shlex
import signal
import statistics
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

    def add(self, run: StudyRun, *, seconds: float = 0.0, processor: str = "") -> None:
        """Note that a run has taken more time, or is on a processor."""
        record = self.by_name.setdefault(run.label, RunRecord(shlex.join(run.arguments)))
        record.seconds += seconds
        record.processors = sorted({*record.processors, processor} - {""})
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
    inform = (lambda text: None) if quiet else say
    waiting = collections.deque(run for run in plan.runs if not run.results.is_file())
    inform(f"{len(plan.runs)} runs, {len(plan.runs) - len(waiting)} of them done")
    write_table(plan, records.by_name)
    environment = describe_environment()
    processor = f"{environment['CPU']} ({environment['CPU capability']})"
    running: dict[StudyRun, tuple[subprocess.Popen, float]] = {}
    failed = 0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.popleft()
                records.add(run, processor=processor)
                inform(f"{_clock()} {run.label} begins, or goes on")
                running[run] = _start(run.command, plan, run.folder), time.monotonic()
            time.sleep(_PAUSE)
            for run in [run for run, (process, _) in running.items() if process.poll() is not None]:
                process, start = running.pop(run)
                records.add(run, seconds=time.monotonic() - start)
                if process.returncode in (_REFUSED, STOPPED):
                    say(f"{run.label}: {_last_line(run.folder)}")
                    return process.returncode
                if process.returncode or not run.results.is_file():
                    failed += 1
                    say(f"{run.label} failed ({process.returncode}): {_last_line(run.folder)}")
                else:
                    inform(f"{_clock()} {_progress(plan, records, run, jobs)}")
                    write_table(plan, records.by_name)
    finally:
        _end([process for process, _ in running.values()])
    if failed:
        say(f"{failed} runs have failed; run the study again to go on with them")
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


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Stop trainings, which save first."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def _last_line(folder: Path) -> str:
    lines = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def _progress(plan: StudyPlan, records: _Records, run: StudyRun, jobs: int) -> str:
    """The time and the metrics of a run, and an estimate of what is left, group by group."""
    seconds: dict[str, list[float]] = collections.defaultdict(list)
    left = []
    for other in plan.runs:
        record = records.by_name.get(other.label)
        if not other.results.is_file():
            left.append(other.group)
        elif record:
            seconds[other.group].append(record.seconds)
    means = {group: statistics.fmean(times) for group, times in seconds.items()}
    usual = statistics.fmean(means.values())
    rest = sum(means.get(group, usual) for group in left) / jobs
    metrics = ", ".join(f"{name} {v:.2f}" for name, v in main_metrics(run.results).items())
    return (
        f"{run.label}: {_duration(records.by_name[run.label].seconds)}, {metrics}; "
        f"{len(plan.runs) - len(left)} of {len(plan.runs)} done, about {_duration(rest)} left"
    )


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _clock() -> str:
    return datetime.datetime.now().strftime("%m-%d %H:%M")

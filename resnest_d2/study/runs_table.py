"""The table of a study: its runs with their seeds, times and metrics."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..analysis.run_folder import is_number, read_history
from ..analysis.task_texts import TASKS
from ..files import write_text
from .study_file import StudyPlan


class _Record(Protocol):
    seconds: float
    processors: list[str]


def main_metrics(results: Path) -> dict[str, float]:
    """The main metric of each task in a file of results, such as ``{"bbox/AP": 23.1}``."""
    content = json.loads(results.read_text(encoding="utf-8"))
    names = {f"{task}/{text.main}": (task, text.main) for task, text in TASKS.items()}
    values = {name: content.get(task, {}).get(main) for name, (task, main) in names.items()}
    return {name: value for name, value in values.items() if is_number(value)}


def finished_runs(plan: StudyPlan, records: Mapping[str, _Record]) -> list[dict[str, Any]]:
    """Of each finished run: its group, seed, minutes, CPUs, final and best metrics."""
    rows = []
    for run in plan.runs:
        if not run.results.is_file():
            continue
        record = records.get(run.label)
        row = {"group": run.group, "seed": run.seed}
        if record:
            row |= {"minutes": round(record.seconds / 60, 1), "CPU": "; ".join(record.processors)}
        history = read_history(run.folder / "metrics.json")
        for name, value in main_metrics(run.results).items():
            seen = [line[name] for line in history if is_number(line.get(name))]
            row |= {name: round(value, 3), f"best {name}": round(max([value, *seen]), 3)}
        rows.append(row)
    return rows


def write_table(plan: StudyPlan, records: Mapping[str, _Record]) -> None:
    """Write :func:`finished_runs` to ``runs.csv``, if there is any."""
    rows = finished_runs(plan, records)
    if not rows:
        return
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, [*columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(plan.out / "runs.csv", text.getvalue())

"""Runs evaluated and analysed side by side: the content of a report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluation import Accuracy, measure_accuracy
from ..progress import progress_bar
from .comparison import require_same_data
from .evaluated_run import EvaluatedRun
from .mistakes import Analysis, analyse_results

MAX_RUNS = 8


@dataclasses.dataclass(frozen=True)
class Study:
    """Runs, evaluated and analysed.

    Attributes:
        names: of the runs, all different.
        accuracies, analyses: by task, then in the order of the runs.
    """

    runs: tuple[EvaluatedRun, ...]
    names: tuple[str, ...]
    score_threshold: float
    accuracies: dict[str, list[Accuracy]]
    analyses: dict[str, list[Analysis]]

    def figures(self) -> list[dict[str, Any]]:
        """Of each run, as plain values: AP, AP by class, mistakes by kind, AP lost by each kind."""

        def task_figures(class_names, accuracy: Accuracy, analysis: Analysis) -> dict[str, Any]:
            classes = zip(class_names, accuracy.classes, strict=True)
            return {
                "metrics": accuracy.metrics,
                "classes": [{"name": name, **values} for name, values in classes],
                "counts": {o.value: number for o, number in analysis.counts.items()},
                "lost_ap": {o.value: value for o, value in analysis.lost_ap.items()},
            }

        return [
            {
                "name": self.names[i],
                "tasks": {
                    task: task_figures(run.class_names, self.accuracies[task][i], analyses[i])
                    for task, analyses in self.analyses.items()
                },
            }
            for i, run in enumerate(self.runs)
        ]


def study_runs(runs: Sequence[EvaluatedRun], *, score_threshold: float = 0.5) -> Study:
    """Evaluate and analyse runs, for :func:`write_report`.

    Args:
        runs: at most 8, evaluated on the same data.
        score_threshold: detections below it are not shown or counted as mistakes, 0-1. AP and lost
            AP are of all detections.

    Raises:
        ValueError: the runs were evaluated on different data, or an argument is out of range.
    """
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ValueError(f"a report is about 1 to {MAX_RUNS} runs, got {len(runs)}")
    tasks = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    require_same_data(runs, tasks)
    names = _names([run.folder.resolve() for run in runs])
    accuracies, analyses = ({task: [] for task in tasks} for _ in range(2))
    for task, run in progress_bar([(t, r) for t in tasks for r in runs], desc="evaluating"):
        analyses[task].append(
            analyse_results(run.truth, run.results, task, score_threshold=score_threshold)
        )
        accuracies[task].append(measure_accuracy(run.truth, run.results, task))
    return Study(tuple(runs), names, score_threshold, accuracies, analyses)


def _names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The last parts of the paths, as many as are needed to tell the runs apart."""
    names: tuple[str, ...] = ()
    for parts in range(1, 1 + max(len(folder.parts) for folder in folders)):
        names = tuple("/".join(folder.parts[-parts:]) for folder in folders)
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"a run is named twice: {', '.join(names)}")

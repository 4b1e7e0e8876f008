"""Runs evaluated and analysed side by side: the content of a report."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..evaluation import Accuracy, measure_accuracy
from ..evaluation.image_confusions import ClassCounts
from ..progress import progress_bar
from .comparing.comparison import shared_tasks
from .confusion_run import ConfusionRun
from .detection_run import DetectionRun
from .mistakes import Analysis, analyse_results, most_confused
from .run_folder import EvaluatedRun, distinct_names
from .task_texts import TASKS

MAX_RUNS = 8


@dataclasses.dataclass(frozen=True)
class Study(abc.ABC):
    """Runs, evaluated and analysed.

    Attributes:
        names: of the runs, all different.
    """

    runs: tuple[EvaluatedRun, ...]
    names: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on besides the runs, as plain values."""
        return {}

    @abc.abstractmethod
    def figures(self) -> list[dict[str, Any]]:
        """Of each run, as plain values: its name, and the numbers of each task."""


@dataclasses.dataclass(frozen=True)
class DetectionStudy(Study):
    """Detectors.

    Attributes:
        score_threshold: detections below it are not shown or counted as mistakes.
        accuracies, analyses: by task, then in the order of the runs.
    """

    runs: tuple[DetectionRun, ...]
    score_threshold: float
    accuracies: dict[str, list[Accuracy]]
    analyses: dict[str, list[Analysis]]

    @property
    def settings(self) -> dict[str, Any]:
        return {"score_threshold": self.score_threshold}

    def figures(self) -> list[dict[str, Any]]:
        """AP, AP by class, mistakes by kind, AP lost by each kind."""

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


@dataclasses.dataclass(frozen=True)
class ConfusionStudy(Study):
    """Runs whose metrics come from the confusions of their images.

    Attributes:
        counts: of the classes, of each run (B = 1).
    """

    runs: tuple[ConfusionRun, ...]
    counts: tuple[ClassCounts, ...]

    @property
    def task(self) -> str:
        return self.runs[0].tasks[0]

    @property
    def metrics(self) -> list[dict[str, float]]:
        """Of each run, by the names in :data:`.TASKS`."""
        names = TASKS[self.task].metrics
        values = (
            run.metrics_of(counts).overall[:, 0].tolist()
            for run, counts in zip(self.runs, self.counts, strict=True)
        )
        return [dict(zip(names, own, strict=True)) for own in values]

    def confusions(self, run: int, count: int) -> list[tuple[int, int, int]]:
        """The most frequent confusions of a run: true and predicted class, and their number."""
        return most_confused(self.runs[run].confusions.matrix, count)

    def worst_images(self, count: int) -> list[int]:
        """Positions of the images with the largest share of wrong counts, summed over the runs.

        An image without a mistake is left out.
        """
        wrong = sum(self.wrong_shares(run) for run in range(len(self.runs)))
        return [int(i) for i in np.argsort(-wrong, kind="stable")[:count] if wrong[i] > 0]

    def wrong_shares(self, run: int) -> np.ndarray:
        """(I,), the share of the counts of each image that is wrong, 0-1."""
        right, total = self.runs[run].confusions.by_image
        return 1 - np.divide(right, total, out=np.ones(len(total)), where=total > 0)

    def figures(self) -> list[dict[str, Any]]:
        """Metrics, numbers of each class, the twenty largest confusions."""
        first = self.runs[0]
        found = []
        for i, (name, metrics, counts) in enumerate(
            zip(self.names, self.metrics, self.counts, strict=True)
        ):
            columns = {"IoU": counts.iou, "ACC": counts.accuracy, "precision": counts.precision}
            classes = [
                {
                    "name": class_name,
                    "count": int(counts.truth[0, number]),
                    **{key: float(values[0, number]) for key, values in columns.items()},
                }
                for number, class_name in enumerate(first.class_names)
            ]
            confusions = [
                {"truth": first.class_names[a], "predicted": first.class_names[b], "count": n}
                for a, b, n in self.confusions(i, 20)
            ]
            task = {"metrics": metrics, "classes": classes, "confusions": confusions}
            found.append({"name": name, "tasks": {self.task: task}})
        return found


def study_runs(runs: Sequence[EvaluatedRun], *, score_threshold: float = 0.5) -> Study:
    """Evaluate and analyse runs, for :func:`write_report`.

    Args:
        runs: at most 8, evaluated on the same data.
        score_threshold: detections below it are not shown or counted as mistakes, 0-1. AP and lost
            AP are of all detections.

    Raises:
        ValueError: the runs were evaluated on different data or have no task in common, or an
            argument is out of range.
    """
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ValueError(f"a report is about 1 to {MAX_RUNS} runs, got {len(runs)}")
    tasks = shared_tasks(runs)
    names = distinct_names([run.folder.resolve() for run in runs])
    if len(set(names)) < len(names):
        raise ValueError(f"a run is named twice: {', '.join(names)}")
    if isinstance(runs[0], ConfusionRun):
        counts = tuple(run.confusions.class_counts() for run in runs)
        return ConfusionStudy(tuple(runs), names, counts)
    accuracies, analyses = ({task: [] for task in tasks} for _ in range(2))
    for task, run in progress_bar([(t, r) for t in tasks for r in runs], desc="evaluating"):
        analyses[task].append(
            analyse_results(run.truth, run.results, task, score_threshold=score_threshold)
        )
        accuracies[task].append(measure_accuracy(run.truth, run.results, task))
    return DetectionStudy(tuple(runs), names, score_threshold, accuracies, analyses)

"""How much one model gains over another on the same data, with an interval: AP, mIoU, top-1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectron2.config import CfgNode

from ...progress import progress_bar
from ..config_changes import config_changes, network_changes, recipe_changes
from ..run_folder import EvaluatedRun, WeightedMetrics, distinct_names
from ..task_texts import TASKS
from .intervals import interval_of_sum


@dataclass(frozen=True)
class Gain:
    """A metric of both sides, the mean of their runs, 0-100; NaN where the data has no such class.

    ``low`` to ``high`` is the interval of ``gain``, which is other - baseline.
    """

    baseline: float
    other: float
    gain: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Side:
    """One run, or several that differ in their seed: folder names, and such as ``ResNeSt-50``."""

    name: str
    runs: tuple[str, ...]
    backbone: str


@dataclass(frozen=True)
class TaskComparison:
    """Gains in one task.

    Attributes:
        metrics: by their names in :data:`.TASKS`; the main one (AP, mIoU) is the first.
        classes: the main metric by class name, in the order of the class numbers.
        draws: the main metric of the runs of baseline, other and each of the more baselines,
            (S, 1 + B): on the data as it is, then on B draws of its images.
    """

    metrics: dict[str, Gain]
    classes: dict[str, Gain]
    draws: tuple[np.ndarray, ...]

    @property
    def baseline_values(self) -> tuple[float, ...]:
        """The main metric of each run of the baseline."""
        return tuple(self.draws[0][:, 0].tolist())

    @property
    def other_values(self) -> tuple[float, ...]:
        return tuple(self.draws[1][:, 0].tolist())


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare_runs` found.

    Attributes:
        tasks: by ``"bbox"``, ``"segm"``, ``"sem_seg"``.
        more_baselines: of other depths, for the gain at equal cost.
        network: see :func:`.network_changes`.
        changes: what makes it an unfair comparison of backbones, see :func:`.recipe_changes`.
    """

    baseline: Side
    other: Side
    more_baselines: tuple[Side, ...]
    tasks: dict[str, TaskComparison]
    network: dict[str, tuple[Any, Any]]
    changes: dict[str, tuple[Any, Any]]
    images: int
    resamples: int
    confidence: float
    seed: int


def compare_runs(
    baseline: Sequence[EvaluatedRun],
    other: Sequence[EvaluatedRun],
    *,
    more_baselines: Sequence[Sequence[EvaluatedRun]] = (),
    names: Sequence[str] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare runs on the data that all of them were evaluated on.

    Args:
        baseline, other: one run, or several of the same model that differ in their seed.
        more_baselines: such as the baseline, with other depths; see :func:`.gain_at_equal_cost`.
        names: of baseline, other and more baselines; by default of the folders of their first runs.
        resamples: number of bootstrap draws, by ``seed``.
        confidence: of the intervals, 0-1.

    Raises:
        ValueError: the runs were evaluated on different data, those of a side are of different
            models, or an argument is out of range.
    """
    sides = [baseline, other, *more_baselines]
    runs = [run for side in sides for run in side]
    if not all(sides):
        raise ValueError(f"each side needs a run, got {', '.join(str(len(s)) for s in sides)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    least = math.ceil(2 / (1 - confidence))  # one draw beyond each end of the interval
    if resamples < least:
        raise ValueError(
            f"resamples must be at least {least} for a confidence of {confidence}, got {resamples}"
        )
    for side in sides:
        _require_same_model(side)
    tasks = shared_tasks(runs)

    rng = np.random.default_rng(seed)
    images = runs[0].num_images
    if images < 2:
        raise ValueError(f"an interval needs at least 2 images, {runs[0].data} has {images}")
    drawn = rng.multinomial(images, [1 / images] * images, size=resamples)
    times = np.concatenate([np.ones((1, images)), drawn])  # the data as it is, first
    found = {}
    class_names = runs[0].class_names
    total = len(tasks) * len(runs) * len(class_names)
    with progress_bar(total=total, desc="comparing", unit="class") as bar:
        for task in tasks:
            metrics = [
                [run.weighted_metrics(task, times, on_class=bar.update) for run in side]
                for side in sides
            ]
            metric_names = TASKS[task].metrics
            found[task] = _compare(metrics, confidence, metric_names, class_names)
    configs = [run.config for run in (*baseline, *other)]
    changes = {}
    # The first run of the other side comes last: its values count.
    for config in (*reversed(configs[1:]), other[0].config):
        changes |= recipe_changes(configs[0], config)
    names = names or distinct_names([side[0].folder.resolve() for side in sides])
    described = [
        Side(name, tuple(run.name for run in side), _backbone(side[0].config))
        for name, side in zip(names, sides, strict=True)
    ]
    return Comparison(
        *described[:2],
        more_baselines=tuple(described[2:]),
        tasks=found,
        network=network_changes(configs[0], other[0].config),
        changes=dict(sorted(changes.items())),
        images=images,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )


def _compare(
    sides: Sequence[Sequence[WeightedMetrics]],
    confidence: float,
    metric_names: Sequence[str],
    class_names: Sequence[str],
) -> TaskComparison:
    """Gains of a task.

    Args:
        sides: of each, metrics of its runs on 1 + B data sets; the first is the data as it is.
            Baseline and other come first.
    """

    def gains(names: Sequence[str], kind: str) -> dict[str, Gain]:
        values = [np.stack([getattr(run, kind) for run in side], axis=1) for side in sides[:2]]
        return {n: _gain(own, confidence) for n, *own in zip(names, *values, strict=True)}

    return TaskComparison(
        gains(metric_names, "overall"),
        gains(class_names, "classes"),
        tuple(np.stack([run.overall[0] for run in side]) for side in sides),
    )


def _gain(sides: Sequence[np.ndarray], confidence: float) -> Gain:
    """From the values of baseline and other (S, 1 + B)."""
    baseline, other = (float(runs[:, 0].mean()) for runs in sides)
    return Gain(baseline, other, *interval_of_sum(sides, (-1, 1), confidence))


def _backbone(config: CfgNode) -> str:
    builder, nets = config.MODEL.BACKBONE.NAME, config.MODEL.RESNETS
    if builder.startswith("build_resnest") and nets.get("RADIX") == 0:  # no split attention
        is_d = nets.DEEP_STEM and nets.AVG_DOWN
        return f"ResNet-{nets.DEPTH}{'-D' if is_d else ''}"
    for start, family in (("build_resnest", "ResNeSt"), ("build_resnet", "ResNet")):
        if builder.startswith(start):
            return f"{family}-{nets.DEPTH}"
    return builder


def _require_same_model(side: Sequence[EvaluatedRun]) -> None:
    for run in side[1:]:
        for key, (first, value) in config_changes(side[0].config, run.config).items():
            if key.startswith("MODEL.") and key not in ("MODEL.WEIGHTS", "MODEL.DEVICE"):
                raise ValueError(
                    "the runs of one side must be of one model with different seeds, but "
                    f"{side[0].folder} has {key} {first}, {run.folder} {value}"
                )


def shared_tasks(runs: Sequence[EvaluatedRun]) -> list[str]:
    """The tasks that all runs have; a ValueError unless there is one, on the same data."""
    first = runs[0]
    tasks = [task for task in first.tasks if all(task in run.tasks for run in runs)]
    if not tasks:
        other = next(run for run in runs if not {*run.tasks} & {*first.tasks})
        kinds = [" and ".join(TASKS[task].name for task in run.tasks) for run in (first, other)]
        raise ValueError(
            f"the runs have no task in common: {first.folder} predicts {kinds[0]}, {other.folder} "
            f"{kinds[1]}"
        )
    require_same_data(runs, tasks)
    return tasks


def require_same_data(runs: Sequence[EvaluatedRun], tasks: Sequence[str]) -> None:
    """Raise a ValueError unless all runs have the same images, classes and objects or labels."""
    first = runs[0]
    content: dict[str, Any] = {}
    for run in runs[1:]:
        content = content or first.content(tasks)
        for what, entries in run.content(tasks).items():
            different = [
                key for key in content[what] | entries if content[what].get(key) != entries.get(key)
            ]
            if different:
                raise ValueError(
                    f"{first.folder} and {run.folder} were evaluated on different data: {what} "
                    f"{', '.join(map(str, different[:5]))} of {first.data} and "
                    f"{run.data} ({len(different)} in all)"
                )

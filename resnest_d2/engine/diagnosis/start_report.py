"""The start-up report: what a run will do, logged before it starts.

Most runs that end in a bad AP were configured wrongly, and the signs are spread over the log. Here
are two tables and some warnings: first the step, the schedule, the images, the memory; then each
part of the model with its trained parameters and the images that its norms take statistics from.
"""

import logging
import textwrap
from collections import Counter
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm
from detectron2.utils import comm

from ...checkpoint.match import Match, in_order, part_of
from ...checkpoint.statistics import InputStatistics
from ...data import TrainingData, summarise_training_data
from ...data.image_reader import value_ranges
from ...data.intensity import Intensity, ValueRange
from ...modeling.norm import PortableSyncBatchNorm
from ..prepare.schedule import Origin
from .memory_estimate import Memory, available_memory, estimate_memory, image_size
from .traps import find_traps

logger = logging.getLogger(__name__)

_SYNCHRONISED = (nn.SyncBatchNorm, NaiveSyncBatchNorm, PortableSyncBatchNorm)
_WIDTH = 76  # of a value, in characters
_Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Part:
    """A part of a model.

    Attributes:
        trainable, frozen: numbers of parameters.
        norms: how many norms of each kind.
        group: images that its batch norms take their statistics from; 0 if they take none.
    """

    name: str
    trainable: int
    frozen: int
    norms: dict[str, int]
    group: int


def model_parts(model: nn.Module, images: int) -> list[Part]:
    """The parts of a model in training mode, from the stem to the heads.

    Args:
        images: in a micro-batch of one process.
    """
    processes = comm.get_world_size()
    parameters: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        counts = parameters.setdefault(part_of(name), [0, 0])
        counts[0 if parameter.requires_grad else 1] += parameter.numel()
    norms: dict[str, Counter] = {}
    groups: dict[str, int] = {}
    for name, module in model.named_modules():
        part = part_of(f"{name}.")
        synchronised = isinstance(module, _SYNCHRONISED) and processes > 1
        for kind, classes in (
            ("FrozenBN", FrozenBatchNorm2d),
            ("SyncBN" if synchronised else "BN", _BatchNorm),
            ("GN", nn.GroupNorm),
            ("LN", nn.LayerNorm),
        ):
            if isinstance(module, classes):
                norms.setdefault(part, Counter())[kind] += 1
        if isinstance(module, _BatchNorm) and module.training:
            group = images * processes if synchronised else images
            groups[part] = min(group, groups.get(part, group))
    return [
        Part(part, *parameters.get(part, (0, 0)), dict(norms.get(part, {})), groups.get(part, 0))
        for part in in_order((*parameters, *norms))
    ]


def log_report(
    cfg: CfgNode,
    model: nn.Module,
    *,
    origin: Origin,
    start: int,
    dtype: torch.dtype | None,
    loaded: tuple[str, Match] | None,
) -> None:
    """Log the report, and a warning for each trap in it. Only the main process does.

    Args:
        model: with or without its distributed wrapper, weights loaded, in training mode.
        start: the first iteration.
        dtype: of autocast.
        loaded: the weights' file and how it fits.
    """
    if not comm.is_main_process():
        return
    processes, micro_batches = comm.get_world_size(), cfg.RESNEST.ACCUMULATE
    images = cfg.SOLVER.IMS_PER_BATCH // processes // micro_batches
    model = getattr(model, "module", model)
    data = summarise_training_data(cfg)
    seen = value_ranges(data.files)
    parts = model_parts(model, images)
    memory = estimate_memory(cfg, model, images=images, dtype=dtype)
    available = available_memory(cfg.MODEL.DEVICE)
    rows = [
        (
            "images per step",
            f"{cfg.SOLVER.IMS_PER_BATCH} = {_count(processes, 'process', 'processes')} x "
            f"{_count(micro_batches, 'micro-batch', 'micro-batches')} x {_count(images, 'image')}",
        ),
        *_schedule(cfg, data, origin, start),
        *_images(cfg, data, seen),
        ("weights", _weights(loaded)),
        *_step(cfg, dtype),
        ("memory", _memory(cfg, memory, available, processes)),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [
        f"  {name:<{width}}  " + f"\n{'':{width + 4}}".join(textwrap.wrap(value, _WIDTH))
        for name, value in rows
    ]
    logger.info("Start of training:\n" + "\n".join(lines))
    logger.info("The model's parts:\n" + _parts_table(cfg, parts))
    for trap in find_traps(
        cfg,
        data=data,
        start=start,
        seen=seen,
        groups={part.name: part.group for part in parts if part.group},
        rate_batch=origin.rate_batch,
        memory=memory.total,
        available=available,
    ):
        logger.warning(trap)


def _schedule(cfg: CfgNode, data: TrainingData, origin: Origin, start: int) -> _Rows:
    solver, keep, tests = cfg.SOLVER, cfg.RESNEST.KEEP_CHECKPOINTS, ", ".join(cfg.DATASETS.TEST)

    def epochs(iterations: int) -> str:
        count = iterations * solver.IMS_PER_BATCH / data.images
        count = round(count) if count >= 100 else float(f"{count:.3g}")
        return f"{_count(iterations, 'iteration')} ({_count(count, 'epoch')})"

    def when(period: int) -> str:
        every = f"every {epochs(period)} and " if 0 < period < solver.MAX_ITER - start else ""
        return f"{every}at the end"

    given = {change.key: change.given for change in origin.changes}
    rate = f"{solver.BASE_LR:.6g}, {cfg.SOLVER.OPTIMIZER}"
    if "SOLVER.BASE_LR" in given:
        rate += f"; scaled from {given['SOLVER.BASE_LR']:g} to the images per step"
    length = f"{epochs(solver.MAX_ITER)} of {_count(data.images, 'image')}"
    if start:
        length += f"; starts at iteration {start}, {max(solver.MAX_ITER - start, 0)} left"
    decay = solver.LR_SCHEDULER_NAME
    if decay == "WarmupMultiStepLR":
        steps = ", ".join(str(step) for step in solver.STEPS if step < solver.MAX_ITER)
        decay = f"x {solver.GAMMA:g} at iteration {steps}" if steps else "none"
    elif decay == "WarmupCosineLR":
        decay = f"along a cosine to {solver.BASE_LR_END:g}"
    kept = f"the last {keep} are kept" if keep else "all are kept"
    return [
        ("learning rate", rate),
        ("schedule", length),
        ("decay", decay),
        ("warm-up", epochs(solver.WARMUP_ITERS) if solver.WARMUP_ITERS else "none"),
        ("evaluation", f"{when(cfg.TEST.EVAL_PERIOD)}, on {tests}" if tests else "none"),
        ("checkpoints", f"{when(solver.CHECKPOINT_PERIOD)}; {kept}"),
    ]


def _images(cfg: CfgNode, data: TrainingData, seen: list[ValueRange]) -> _Rows:
    jitter, intensity = cfg.RESNEST.JITTER, Intensity.from_config(cfg)
    classifies = cfg.MODEL.META_ARCHITECTURE == "ImageClassifier"
    if classifies:
        low, high = cfg.RESNEST.CLASSIFIER.CROP_AREA
        size = f"{cfg.RESNEST.CLASSIFIER.TRAIN_SIZE} x {cfg.RESNEST.CLASSIFIER.TRAIN_SIZE} pixels, "
        size += f"from crops of {100 * low:g} to {100 * high:g} % of the image"
    elif side := jitter.SIZE:
        low, high = jitter.SCALE
        crop = jitter.CROP or side
        size = f"{crop} x {crop} pixels, cut out of {side} pixels times {low:g} to {high:g}"
    else:
        ranged = cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range"
        short = (" to " if ranged else ", ").join(map(str, cfg.INPUT.MIN_SIZE_TRAIN))
        size = f"short side {short}, long side at most {cfg.INPUT.MAX_SIZE_TRAIN} pixels"
    rows = [("training data", ", ".join(cfg.DATASETS.TRAIN))]
    if classifies and data.instances:
        number, fewest, most = len(data.instances), min(data.instances), max(data.instances)
        rows.append(("classes", f"{number}, of {fewest} to {_count(most, 'image')}"))
    elif data.instances is not None:
        crowds = f"; {_count(data.crowds, 'crowd')} (iscrowd 1) left out" if data.crowds else ""
        rows.append(("objects", f"{sum(data.instances)}{crowds}"))
    rows += [("input", str(InputStatistics.from_config(cfg))), ("image size", size)]
    if seen:
        rule = f"{intensity.rule} {intensity.range or ''}".rstrip()
        rows.append(("image values", f"rule {rule}; a sample has {', '.join(map(str, seen))}"))
    return rows


def _weights(loaded: tuple[str, Match] | None) -> str:
    if loaded is None:
        return "none: all are random"
    file, match = loaded
    counts = [f"{len(match.matched)} of {len(match.own)} tensors are from {file}"]
    if missing := len(match.missing) + len(match.misshapen):
        counts.append(f"{missing} are random")
    if match.unexpected:
        counts.append(f"{len(match.unexpected)} of the file are not used")
    return "; ".join(counts)


def _step(cfg: CfgNode, dtype: torch.dtype | None) -> _Rows:
    ours, ema = cfg.RESNEST, cfg.MODEL_EMA
    precision = "float32" if dtype is None else f"{dtype} autocast".removeprefix("torch.")
    return [
        ("precision", f"{precision}, on {cfg.MODEL.DEVICE}"),
        (
            "average of weights",
            f"decay {ema.DECAY:g}: evaluated and saved" if ema.ENABLED else "off",
        ),
        ("checkpointed stages", ", ".join(ours.ACTIVATION_CHECKPOINTING) or "none"),
        ("norms", "computed again in the backward pass" if ours.RECOMPUTE_NORM else "kept"),
        ("backbone", "compiled at the first step" if ours.COMPILE_BACKBONE else "not compiled"),
        ("seed", str(cfg.SEED) if cfg.SEED >= 0 else "none: another one in each run"),
    ]


def _memory(cfg: CfgNode, memory: Memory, available: int | None, processes: int) -> str:
    total = _size(memory.total) + (" per process" if processes > 1 else "")
    known = (
        f"weights {_size(memory.weights)}, gradients {_size(memory.gradients)}, "
        f"optimizer {_size(memory.optimizer)}"
    )
    if memory.activations is None:
        estimate = f"{total} ({known}), and activations, which are unknown here"
    else:
        height, width = image_size(cfg)
        estimate = (
            f"about {total}: {known}, activations some {_size(memory.activations)} (from shapes, "
            f"for images of {height} x {width})"
        )
    return estimate + (f"; available: {_size(available)}" if available else "")


def _parts_table(cfg: CfgNode, parts: list[Part]) -> str:
    until = cfg.RESNEST.FREEZE_NORM.ITER
    rows = []
    for part in parts:
        norms = ", ".join(f"{count} {kind}" for kind, count in part.norms.items())
        statistics = "of each image" if part.norms else ""
        if part.group:
            statistics = f"of {_count(part.group, 'image')}"
            statistics += f" until iteration {until}" if until > 0 else ""
        elif {"FrozenBN", "BN", "SyncBN"} & set(part.norms):
            statistics = "fixed"
        rows.append((part.name, f"{part.trainable:,}", f"{part.frozen:,}", norms, statistics))
    total = (sum(p.trainable for p in parts), sum(p.frozen for p in parts))
    rows.append(("all", *(f"{number:,}" for number in total), "", ""))
    return tabulate(
        rows,
        headers=["part", "trainable parameters", "frozen", "norms", "statistics"],
        tablefmt="pipe",
        colalign=("left", "right", "right", "left", "left"),
        disable_numparse=True,
    )


def _count(number: float, one: str, many: str = "") -> str:
    return f"{number:.10g} {one if number == 1 else many or one + 's'}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"

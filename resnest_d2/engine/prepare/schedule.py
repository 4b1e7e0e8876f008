"""Learning rate and schedule for the batch and the data of a run.

A recipe's learning rate is for its batch size: with another ``SOLVER.IMS_PER_BATCH`` and the same
rate, the loss becomes infinite, or AP falls far below the published one. So with
``RESNEST.AUTO_SCALE``, a batch k times as large as the recipe's

- multiplies the learning rate by k (Goyal et al., arXiv 1706.02677), for AdamW by the square root
  of k (Malladi et al., arXiv 2205.10287);
- divides all numbers of iterations by k, so that as many images are seen.

For example, a recipe with 16 images, a rate of 0.02 and 90,000 iterations becomes, with
``SOLVER.IMS_PER_BATCH 4``, one with a rate of 0.005 and 360,000 iterations.

A value that the user has chosen is kept. Which ones those are follows from the layer (a YAML file,
or ``opts``) in which each is set; ``_BASE_`` files come first, ``opts`` last:

- the rate is for the batch size that the rate's own layer, or the last one below it, has set;
- a number of iterations in the layer of the batch size, or above, is kept;
- if ``SOLVER.MAX_ITER`` is kept, the steps, the warm-up and the iteration that fixes the batch
  norms are scaled like it instead.

A config that a run has written sets all values in one layer, so it is never scaled again.

``RESNEST.EPOCHS`` is turned into iterations by the number of images that the loader draws from.

Only :func:`set_schedule` changes a config, when a run is prepared: ``get_config`` gives the values
as they are written.
"""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tabulate import tabulate

from detectron2.config import CfgNode

from ...config import get_value, set_value
from ...data import summarise_training_data
from .given_values import GivenValues

logger = logging.getLogger(__name__)

_BATCH, _RATE, _MAX = "SOLVER.IMS_PER_BATCH", "SOLVER.BASE_LR", "SOLVER.MAX_ITER"
_STEPS, _WARMUP, _FREEZE = "SOLVER.STEPS", "SOLVER.WARMUP_ITERS", "RESNEST.FREEZE_NORM.ITER"
_EVAL, _CHECKPOINT = "TEST.EVAL_PERIOD", "SOLVER.CHECKPOINT_PERIOD"
_ITERATIONS = (_MAX, _STEPS, _WARMUP, _CHECKPOINT, _EVAL, _FREEZE)
_SHARES = (_STEPS, _WARMUP, _FREEZE)  # when something happens in a training
_EPOCHS = {
    "MAX": _MAX,
    "STEPS": _STEPS,
    "WARMUP": _WARMUP,
    "EVAL_PERIOD": _EVAL,
    "CHECKPOINT_PERIOD": _CHECKPOINT,
}


@dataclass(frozen=True)
class Change:
    """A value that differs from the given one."""

    key: str
    given: Any
    used: Any


@dataclass(frozen=True)
class Origin:
    """Where a run's schedule comes from, for the start-up report.

    Attributes:
        changes: the values that differ from the given ones, the learning rate first.
        rate_batch: images per step that the learning rate is for.
    """

    changes: tuple[Change, ...] = ()
    rate_batch: int | None = None


def set_schedule(cfg: CfgNode, given: GivenValues) -> Origin:
    """Scale learning rate and schedule and turn epochs into iterations, in place.

    Raises:
        ValueError: an epoch key has an invalid value, or contradicts a key in iterations.
    """
    _check_epochs(cfg)
    _scale(cfg, given)
    _use_epochs(cfg, given)
    changes = [Change(key, given.value(key), get_value(cfg, key)) for key in (_RATE, *_ITERATIONS)]
    scaled = cfg.SOLVER.BASE_LR != changes[0].given
    return Origin(
        tuple(change for change in changes if change.given != change.used),
        cfg.SOLVER.IMS_PER_BATCH if scaled else given.value(_BATCH, given.layer(_RATE)),
    )


def check_schedule(cfg: CfgNode) -> None:
    """Raise a ValueError where a schedule trains nothing or stops the engine."""
    solver = cfg.SOLVER
    for key, lowest, why in (
        (_MAX, 1, ": nothing would be trained"),
        (_BATCH, 1, ""),
        (_CHECKPOINT, 1, ""),
        (_WARMUP, 0, ""),
        ("RESNEST.ACCUMULATE", 1, ""),
        ("RESNEST.KEEP_CHECKPOINTS", 0, ""),
        ("RESNEST.BEST.PATIENCE", 0, ""),
    ):
        if (value := get_value(cfg, key)) < lowest:
            raise ValueError(f"{key} must be at least {lowest}, got {value}{why}")
    if not 0 <= solver.BASE_LR < math.inf:
        raise ValueError(f"SOLVER.BASE_LR must be a number, at least 0, got {solver.BASE_LR}")
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and not solver.BASE_LR and solver.BASE_LR_END:
        raise ValueError(
            f"SOLVER.BASE_LR is 0, and a cosine never reaches SOLVER.BASE_LR_END "
            f"{solver.BASE_LR_END} from there: set SOLVER.BASE_LR_END to 0, or SOLVER.BASE_LR "
            "above it"
        )
    if solver.RESCALE_INTERVAL and solver.WARMUP_ITERS >= solver.MAX_ITER:
        raise ValueError(
            f"SOLVER.WARMUP_ITERS {solver.WARMUP_ITERS} must be below SOLVER.MAX_ITER "
            f"{solver.MAX_ITER} where SOLVER.RESCALE_INTERVAL is True: lower it, or "
            "RESNEST.EPOCHS.WARMUP where that sets it"
        )
    steps = list(solver.STEPS)
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and steps != sorted(set(steps)):
        raise ValueError(f"SOLVER.STEPS must rise, got {solver.STEPS}")


def _check_epochs(cfg: CfgNode) -> None:
    epochs = cfg.RESNEST.EPOCHS
    for name in _EPOCHS:
        for value in epochs[name] if name == "STEPS" else [epochs[name]]:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                what = "numbers" if name == "STEPS" else "a number"
                raise ValueError(
                    f"RESNEST.EPOCHS.{name} must be {what} of epochs, at least 0, got {value!r}"
                )
    steps = list(epochs.STEPS)
    if steps != sorted(set(steps)) or 0 in steps:
        raise ValueError(f"RESNEST.EPOCHS.STEPS must rise from above 0, got {epochs.STEPS}")
    if steps and 0 < epochs.MAX <= steps[-1]:
        raise ValueError(
            f"RESNEST.EPOCHS.STEPS must lie below RESNEST.EPOCHS.MAX {epochs.MAX:g}, "
            f"got {epochs.STEPS}"
        )


def _scale(cfg: CfgNode, given: GivenValues) -> None:
    batch, reference = cfg.SOLVER.IMS_PER_BATCH, given.value(_BATCH, given.layer(_RATE))
    if batch == reference:
        before = given.value(_BATCH, given.opts - 1)
        if given.in_opts(_RATE) and batch != before and cfg.RESNEST.AUTO_SCALE:
            logger.info(
                f"{_RATE} {cfg.SOLVER.BASE_LR:g} is given: neither it nor the schedule is scaled "
                f"to {_BATCH} {batch} from the config's {before}"
            )
        return
    if min(batch, reference) < 1 or not cfg.RESNEST.AUTO_SCALE:
        return  # a batch below 1 is refused later
    if cfg.SOLVER.REFERENCE_WORLD_SIZE:
        logger.info(
            f"SOLVER.REFERENCE_WORLD_SIZE is {cfg.SOLVER.REFERENCE_WORLD_SIZE}: Detectron2 scales "
            "by the number of processes, and RESNEST.AUTO_SCALE does nothing"
        )
        return
    factor, batch_layer = batch / reference, given.layer(_BATCH)
    root = cfg.SOLVER.OPTIMIZER == "AdamW"
    rows = [_set(cfg, _RATE, cfg.SOLVER.BASE_LR * (math.sqrt(factor) if root else factor))]
    times = Fraction(reference, batch)
    share, whole = times, given.value(_MAX, batch_layer - 1)
    if given.layer(_MAX) >= batch_layer and min(whole, cfg.SOLVER.MAX_ITER) > 0:
        share = Fraction(cfg.SOLVER.MAX_ITER, whole)
    multi_step = cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR"
    used = [key for key in _ITERATIONS if key != _STEPS or multi_step]
    kept = [key for key in used if given.layer(key) >= batch_layer]
    for key in used:
        if key not in kept:
            by = share if key in _SHARES else times
            rows.append(_set(cfg, key, _rounded(get_value(cfg, key), by)))
    rule = f"rate x {'sqrt(' if root else ''}{batch}/{reference}{')' if root else ''}"
    stays = f" Given with the batch, and kept: {', '.join(kept)}." if kept else ""
    if share != times:
        names = [row.key for row in rows if row.key in _SHARES and row.given != row.used]
        stays += f" {', '.join(names) or 'Nothing else'} x {cfg.SOLVER.MAX_ITER}/{whole}: the share"
        stays += f" of {_MAX}."
    logger.info(
        f"{_BATCH} is {batch}, and {_RATE} {given.value(_RATE):g} is for {reference}: {rule}, "
        f"iterations x {reference}/{batch}.{stays} To turn this off, set RESNEST.AUTO_SCALE False "
        f"or give a {_RATE}.\n{_table(rows)}"
    )


def _use_epochs(cfg: CfgNode, given: GivenValues) -> None:
    epochs = cfg.RESNEST.EPOCHS
    in_epochs = {name: key for name, key in _EPOCHS.items() if epochs[name]}
    batch = cfg.SOLVER.IMS_PER_BATCH
    for name, key in in_epochs.items():
        if given.in_opts(key):
            off = "()" if name == "STEPS" else "0"
            raise ValueError(
                f"RESNEST.EPOCHS.{name} {epochs[name]} and {key} {get_value(cfg, key)} contradict "
                f"each other: leave {key} out, or set RESNEST.EPOCHS.{name} {off}"
            )
    if not in_epochs or batch < 1:  # which is refused later
        return
    images = summarise_training_data(cfg).images

    def iterations(value: float) -> int:
        return math.ceil(Fraction(str(value)) * images / batch)  # exact: 1.1 epochs of 10 are 11

    rows, recipe_max = [], cfg.SOLVER.MAX_ITER
    for name, key in in_epochs.items():
        value = epochs[name]
        used = tuple(map(iterations, value)) if name == "STEPS" else iterations(value)
        rows.append(_set(cfg, key, used))
    if "MAX" in in_epochs and recipe_max > 0:
        share = Fraction(cfg.SOLVER.MAX_ITER, recipe_max)
        multi_step = cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR"
        for key in _SHARES if multi_step else _SHARES[1:]:
            layer = given.layer(key)  # given for these epochs, not for the recipe's iterations?
            own = layer > given.layer(_MAX) and layer >= given.layer("RESNEST.EPOCHS.MAX")
            if key not in in_epochs.values() and not own:
                rows.append(_set(cfg, key, _rounded(get_value(cfg, key), share)))
    elif epochs.STEPS and cfg.SOLVER.STEPS[-1] >= cfg.SOLVER.MAX_ITER:
        raise ValueError(
            f"RESNEST.EPOCHS.STEPS {epochs.STEPS} are iterations {cfg.SOLVER.STEPS}, which must "
            f"lie below {_MAX} {cfg.SOLVER.MAX_ITER}"
        )
    logger.info(
        f"An epoch is {images / batch:.6g} iterations: {images} images, {batch} per step. Set by "
        f"RESNEST.EPOCHS:\n{_table(rows)}"
    )


def _rounded(value: Any, factor: Fraction) -> Any:
    """Iterations times a factor; a number above 0 stays at least 1, and steps stay different."""
    if isinstance(value, Iterable):
        return tuple(dict.fromkeys(_rounded(item, factor) for item in value))
    return max(1, round(value * factor)) if value > 0 else value


def _set(cfg: CfgNode, key: str, value: Any) -> Change:
    before = get_value(cfg, key)
    set_value(cfg, key, value)
    return Change(key, before, value)


def _table(rows: list[Change]) -> str:
    return tabulate(
        [
            [row.key, *(f"{v:g}" if isinstance(v, float) else v for v in (row.given, row.used))]
            for row in rows
            if row.given != row.used
        ],
        headers=["key", "given", "used"],
        tablefmt="pipe",
        disable_numparse=True,
    )

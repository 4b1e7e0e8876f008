"""Learning rate and schedule for the batch and the data that a run really has.

A recipe's learning rate is for its batch. Whoever trains it with another ``SOLVER.IMS_PER_BATCH``
on a smaller machine and keeps the rate gets a loss that is not finite, or a fraction of the
published AP. With ``RESNEST.AUTO_SCALE`` the rate belongs to the batch that was in force where it
was last stated, in the order of the YAML files and ``opts``; where the run has another one, k times
as large, the rate is multiplied by k (Goyal et al., arXiv 1706.02677), for AdamW by the square root
of k (Malladi et al., arXiv 2205.10287), and what is counted in iterations is divided by k, so that
as many images are seen. What is stated together with the batch, or after it, stays. Where that is
``SOLVER.MAX_ITER``, the steps, the warm-up and the iteration that fixes the batch norms keep their
share of it. A config that a run has written states everything in one file, so it is never scaled
again.

``RESNEST.EPOCHS`` becomes iterations here, from the number of images that the loader draws from.

Only :func:`set_schedule` changes a config, when a run is prepared: ``get_config`` gives the values
as they are written.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tabulate import tabulate

from detectron2.config import CfgNode, get_cfg

from ...config import add_resnest_config, get_value, merge_opts, set_value
from ...data import summarise_training_data

__all__ = ["Change", "Origin", "check_epochs", "set_schedule"]

logger = logging.getLogger(__name__)

_BATCH, _RATE, _MAX = "SOLVER.IMS_PER_BATCH", "SOLVER.BASE_LR", "SOLVER.MAX_ITER"
_STEPS, _WARMUP, _FREEZE = "SOLVER.STEPS", "SOLVER.WARMUP_ITERS", "RESNEST.FREEZE_NORM.ITER"
_EVAL, _CHECKPOINT = "TEST.EVAL_PERIOD", "SOLVER.CHECKPOINT_PERIOD"
_ITERATIONS = (_MAX, _STEPS, _WARMUP, _CHECKPOINT, _EVAL, _FREEZE)
_SHARES = (_STEPS, _WARMUP, _FREEZE)  # where in a training something happens
_EPOCHS = {
    "MAX": _MAX,
    "STEPS": _STEPS,
    "WARMUP": _WARMUP,
    "EVAL_PERIOD": _EVAL,
    "CHECKPOINT_PERIOD": _CHECKPOINT,
}


@dataclass(frozen=True)
class Change:
    """A value that a run does not take as it is stated."""

    key: str
    stated: Any
    used: Any


@dataclass(frozen=True)
class Origin:
    """Where a run's schedule comes from.

    Attributes:
        changes: what is not as it is stated, the learning rate first.
        rate_batch: images a step that the learning rate is for.
    """

    changes: tuple[Change, ...] = ()
    rate_batch: int | None = None


def set_schedule(cfg: CfgNode, layers: Sequence[dict[str, Any]]) -> Origin:
    """Scale a config's learning rate and schedule and turn epochs into iterations, in place.

    What changes is logged, with the reason and the way to turn it off.

    Args:
        layers: see :func:`resnest_d2.config.read_config`.

    Returns:
        What was changed, for the start-up report.

    Raises:
        ValueError: an epoch key cannot be, or contradicts one in iterations.
    """
    check_epochs(cfg)
    stated = _Stated(layers)
    frozen = cfg.is_frozen()
    cfg.defrost()
    _scale(cfg, stated)
    _use_epochs(cfg, stated)
    if frozen:
        cfg.freeze()
    changes = [Change(key, stated.value(key), get_value(cfg, key)) for key in (_RATE, *_ITERATIONS)]
    scaled = cfg.SOLVER.BASE_LR != changes[0].stated
    return Origin(
        tuple(change for change in changes if change.stated != change.used),
        cfg.SOLVER.IMS_PER_BATCH if scaled else stated.value(_BATCH, stated.layer(_RATE)),
    )


def check_epochs(cfg: CfgNode) -> None:
    """Raise a ValueError, with its key, where ``RESNEST.EPOCHS`` cannot be."""
    epochs = cfg.RESNEST.EPOCHS
    for name in _EPOCHS:
        values = epochs[name] if name == "STEPS" else [epochs[name]]
        for value in values:
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


class _Stated:
    """Which layer states what. Layer -1 is Detectron2's defaults and this project's."""

    def __init__(self, layers: Sequence[dict[str, Any]]):
        self._layers = layers
        self._defaults = get_cfg()
        add_resnest_config(self._defaults)

    @property
    def opts(self) -> int:
        return len(self._layers) - 1

    def layer(self, key: str) -> int:
        """The last one that states a key."""
        return max((i for i, layer in enumerate(self._layers) if key in layer), default=-1)

    def value(self, key: str, layer: int | None = None) -> Any:
        """The value in force after a layer, by default the last one."""
        layers = self._layers if layer is None else self._layers[: layer + 1]
        values = [layer[key] for layer in layers if key in layer]
        if not values:
            return get_value(self._defaults, key)
        typed = self._defaults.clone()
        merge_opts(typed, [key, values[-1]])  # as get_config reads it: "16" is 16
        return get_value(typed, key)


def _scale(cfg: CfgNode, stated: _Stated) -> None:
    batch, reference = cfg.SOLVER.IMS_PER_BATCH, stated.value(_BATCH, stated.layer(_RATE))
    given_at = stated.layer(_BATCH)
    if batch == reference:
        before = stated.value(_BATCH, stated.opts - 1)
        if stated.layer(_RATE) == stated.opts and batch != before and cfg.RESNEST.AUTO_SCALE:
            logger.info(
                f"{_RATE} {cfg.SOLVER.BASE_LR:g} is given: neither it nor the schedule is scaled "
                f"to {_BATCH} {batch} from the config's {before}"
            )
        return
    if min(batch, reference) < 1 or not cfg.RESNEST.AUTO_SCALE:
        return  # the first is refused later
    if cfg.SOLVER.REFERENCE_WORLD_SIZE:
        logger.info(
            f"SOLVER.REFERENCE_WORLD_SIZE is {cfg.SOLVER.REFERENCE_WORLD_SIZE}: Detectron2 scales "
            "by the number of processes, and RESNEST.AUTO_SCALE does nothing"
        )
        return
    factor = batch / reference
    root = cfg.SOLVER.OPTIMIZER == "AdamW"
    rows = [_set(cfg, _RATE, cfg.SOLVER.BASE_LR * (math.sqrt(factor) if root else factor))]
    kept, times = [], Fraction(reference, batch)
    share, whole = times, stated.value(_MAX, given_at - 1)
    if stated.layer(_MAX) >= given_at and min(whole, cfg.SOLVER.MAX_ITER) > 0:
        share = Fraction(cfg.SOLVER.MAX_ITER, whole)
    for key in _ITERATIONS:
        if key == _STEPS and cfg.SOLVER.LR_SCHEDULER_NAME != "WarmupMultiStepLR":
            continue  # nobody reads it
        if stated.layer(key) >= given_at:
            kept.append(key)
        else:
            by = share if key in _SHARES else times
            rows.append(_set(cfg, key, _rounded(get_value(cfg, key), by)))
    rule = f"rate x {'sqrt(' if root else ''}{batch}/{reference}{')' if root else ''}"
    stays = f" Given with the batch, and kept: {', '.join(kept)}." if kept else ""
    if share != times:
        names = [row.key for row in rows if row.key in _SHARES and row.stated != row.used]
        stays += f" {', '.join(names) or 'Nothing else'} x {cfg.SOLVER.MAX_ITER}/{whole}: the share"
        stays += f" of {_MAX}."
    logger.info(
        f"{_BATCH} is {batch}, and {_RATE} {stated.value(_RATE):g} is for {reference}: {rule}, "
        f"iterations x {reference}/{batch}.{stays} RESNEST.AUTO_SCALE False turns this off, and "
        f"so does a {_RATE} of yours.\n{_table(rows)}"
    )


def _use_epochs(cfg: CfgNode, stated: _Stated) -> None:
    epochs = cfg.RESNEST.EPOCHS
    given = {name: key for name, key in _EPOCHS.items() if epochs[name]}
    if not given:
        return
    for name, key in given.items():
        if stated.layer(key) == stated.opts:
            off = "()" if name == "STEPS" else "0"
            raise ValueError(
                f"RESNEST.EPOCHS.{name} {epochs[name]} and {key} {get_value(cfg, key)} contradict "
                f"each other: leave {key} out, or set RESNEST.EPOCHS.{name} {off}"
            )
    images, batch = summarise_training_data(cfg).images, cfg.SOLVER.IMS_PER_BATCH
    if batch < 1:
        return  # refused later

    def iterations(value: float) -> int:
        return math.ceil(Fraction(str(value)) * images / batch)  # exact: 1.1 epochs of 10 are 11

    rows, recipe_max = [], cfg.SOLVER.MAX_ITER
    for name, key in given.items():
        value = epochs[name]
        used = tuple(map(iterations, value)) if name == "STEPS" else iterations(value)
        rows.append(_set(cfg, key, used))
    if "MAX" in given and recipe_max > 0:
        share = Fraction(cfg.SOLVER.MAX_ITER, recipe_max)
        multi_step = cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR"
        for key in _SHARES if multi_step else _SHARES[1:]:
            layer = stated.layer(key)  # given for these epochs, not for the recipe's iterations?
            own = layer > stated.layer(_MAX) and layer >= stated.layer("RESNEST.EPOCHS.MAX")
            if key not in given.values() and not own:
                rows.append(_set(cfg, key, _rounded(get_value(cfg, key), share)))
    elif epochs.STEPS and cfg.SOLVER.STEPS[-1] >= cfg.SOLVER.MAX_ITER:
        raise ValueError(
            f"RESNEST.EPOCHS.STEPS {epochs.STEPS} are iterations {cfg.SOLVER.STEPS}, which must "
            f"lie below {_MAX} {cfg.SOLVER.MAX_ITER}"
        )
    logger.info(
        f"An epoch is {images / batch:.6g} iterations: {images} images, {batch} a step. Set by "
        f"RESNEST.EPOCHS:\n{_table(rows)}"
    )


def _rounded(value: Any, factor: Fraction) -> Any:
    """Numbers of iterations times a factor; what is above 0 stays at least 1, steps differ."""
    if isinstance(value, Iterable):
        return tuple(dict.fromkeys(_rounded(item, factor) for item in value))
    return max(1, round(value * factor)) if value > 0 else value


def _set(cfg: CfgNode, key: str, value: Any) -> Change:
    before = get_value(cfg, key)
    set_value(cfg, key, value)
    return Change(key, before, value)


def _table(rows: list[Change]) -> str:
    def text(value: Any) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    return tabulate(
        [(row.key, text(row.stated), text(row.used)) for row in rows if row.stated != row.used],
        headers=["key", "stated", "used"],
        tablefmt="pipe",
        disable_numparse=True,
    )

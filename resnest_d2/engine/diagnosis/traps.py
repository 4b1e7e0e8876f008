"""Known settings that make a training useless although it runs, each with its remedy."""

from collections.abc import Mapping, Sequence

from detectron2.config import CfgNode

from ...data import TrainingData
from ...data.intensity import Intensity, ValueRange, fitting_keys
from ...model_zoo.trained import head_key, head_of
from ...text import printable
from .run_errors import RunError

_FEW = 4  # images from which a batch norm's statistics are too noisy for detection
_HOPELESS = 10  # times the free memory: estimates are not that wrong


def find_traps(
    cfg: CfgNode,
    *,
    data: TrainingData,
    seen: Sequence[ValueRange] = (),
    start: int = 0,
    groups: Mapping[str, int] | None = None,
    rate_batch: int | None = None,
    memory: int = 0,
    available: int | None = None,
) -> list[str]:
    """Warnings for a run that is about to begin.

    Args:
        seen: values of some training images with more than 8 bits.
        start: the first iteration.
        groups: by part of the model, the images that its batch norms take statistics from; without
            the parts whose statistics are fixed.
        rate_batch: images per step that the learning rate is for, if known.
        memory: estimated, in bytes.
        available: in bytes, if known.

    Raises:
        RunError: the memory cannot suffice.
    """
    return [
        *_length(cfg, start),
        *_rate(cfg, rate_batch),
        *_norms(cfg, data, groups or {}),
        *_classes(cfg, data),
        *_values(cfg, seen),
        *_memory(memory, available),
    ]


def _length(cfg: CfgNode, start: int) -> list[str]:
    solver, found = cfg.SOLVER, []
    last = f"SOLVER.MAX_ITER is {solver.MAX_ITER}"
    if start >= solver.MAX_ITER:
        found.append(
            f"0 iterations are left to train: the checkpoint has {start}, and {last}. Raise "
            "SOLVER.MAX_ITER to train longer; for a new run that starts from these weights use "
            "--init-from and another OUTPUT_DIR in place of --resume"
        )
    beyond = [str(step) for step in solver.STEPS if step >= solver.MAX_ITER]
    if beyond and solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        found.append(
            f"SOLVER.STEPS {', '.join(beyond)} are never reached: {last}, so the learning rate "
            "does not fall there. Give SOLVER.STEPS below it, e.g. 2/3 and 8/9 of it"
        )
    if solver.WARMUP_ITERS >= solver.MAX_ITER:
        found.append(
            f"SOLVER.WARMUP_ITERS {solver.WARMUP_ITERS} does not end before the training, and the "
            f"full learning rate is never reached: {last}. Lower it"
        )
    freeze = cfg.RESNEST.FREEZE_NORM.ITER
    if freeze >= solver.MAX_ITER:
        found.append(
            f"RESNEST.FREEZE_NORM.ITER {freeze} is never reached: {last}. Lower it, or set it to 0"
        )
    if not cfg.DATASETS.TEST:
        found.append(
            "Nothing is evaluated: DATASETS.TEST is empty. Without validation data (--val-json and "
            "--val-images, or DATASETS.TEST) the model's AP stays unknown"
        )
    return found


def _rate(cfg: CfgNode, rate_batch: int | None) -> list[str]:
    solver = cfg.SOLVER
    if rate_batch in (None, solver.IMS_PER_BATCH) or solver.REFERENCE_WORLD_SIZE:
        return []
    return [
        f"SOLVER.BASE_LR {solver.BASE_LR:g} is for {rate_batch} images per step, and "
        f"SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH}. Set RESNEST.AUTO_SCALE True, or give a "
        "SOLVER.BASE_LR"
    ]


def _norms(cfg: CfgNode, data: TrainingData, groups: Mapping[str, int]) -> list[str]:
    solver, found = cfg.SOLVER, []
    few = {part: images for part, images in groups.items() if images < _FEW}
    if few:
        images = min(few.values())
        found.append(
            f"The batch norms of {', '.join(few)} take their statistics from {images} "
            f"image{'s' if images > 1 else ''}: with fewer than {_FEW} they are too noisy to "
            "detect with. Take more images per process (SOLVER.IMS_PER_BATCH; RESNEST.ACCUMULATE "
            'does not help), "SyncBN" over several processes, "GN", or "FrozenBN" with trained '
            "weights, in MODEL.RESNETS.NORM and the NORM of the other parts"
        )
    precise = cfg.TEST.PRECISE_BN
    if precise.ENABLED and groups:
        images = precise.NUM_ITER * solver.IMS_PER_BATCH // cfg.RESNEST.ACCUMULATE
        enough = max(1, min(data.images // solver.IMS_PER_BATCH, solver.MAX_ITER))
        remedy = f"Set TEST.PRECISE_BN.NUM_ITER {enough}, or TEST.PRECISE_BN.ENABLED False"
        if images > data.images:
            found.append(
                f"TEST.PRECISE_BN.NUM_ITER {precise.NUM_ITER} reads {images} images before each "
                f"evaluation, and there are {data.images}. {remedy}"
            )
        elif precise.NUM_ITER > solver.MAX_ITER:
            found.append(
                f"TEST.PRECISE_BN.NUM_ITER {precise.NUM_ITER} is longer than the training, "
                f"SOLVER.MAX_ITER {solver.MAX_ITER}. {remedy}"
            )
    return found


def _classes(cfg: CfgNode, data: TrainingData) -> list[str]:
    found = []
    if empty := data.empty_classes:
        more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
        found.append(
            f"{len(empty)} of {len(data.class_names)} classes have nothing to learn from: "
            f"{printable(', '.join(empty[:10]))}{more}. Add images with them, or take them out of "
            "the classes"
        )
    key = f"{head_key(cfg)}.NUM_CLASSES"
    classes, known = head_of(cfg).NUM_CLASSES, len(data.class_names)
    if data.instances is not None and classes > known:
        found.append(
            f"{key} is {classes}, and the data has {known} classes: the others learn nothing. Set "
            f"{key} {known}"
        )
    return found


def _values(cfg: CfgNode, seen: Sequence[ValueRange]) -> list[str]:
    intensity = Intensity.from_config(cfg)
    return [
        f"RESNEST.INTENSITY.RULE is {intensity.rule}, and training images have {reason}. Fitting: "
        f"{fitting_keys(seen)}"
        for values in seen
        if (reason := intensity.misfit(values))
    ]


def _memory(memory: int, available: int | None) -> list[str]:
    """What to do where a step needs more memory than there is.

    Raises:
        RunError: it needs many times as much, and the system would kill the process without a word.
    """
    if available is None or memory <= available:
        return []
    found = (
        f"A step may need {memory / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are free. "
        "Take smaller micro-batches (RESNEST.ACCUMULATE), recomputed norms "
        "(RESNEST.RECOMPUTE_NORM), checkpointed stages (RESNEST.ACTIVATION_CHECKPOINTING), mixed "
        "precision (RESNEST.AMP_DTYPE) or smaller images (INPUT.MIN_SIZE_TRAIN, "
        "RESNEST.JITTER.SIZE; of a classifier RESNEST.CLASSIFIER.TRAIN_SIZE)"
    )
    if memory > _HOPELESS * available:
        raise RunError(found)
    return [found]

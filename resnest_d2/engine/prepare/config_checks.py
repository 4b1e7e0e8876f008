"""What can be refused before a process is started or a data set is read into memory."""

import logging
import math
import os
from collections.abc import Iterable

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...checkpoint import RECORD_KEY, RunCheckpointer, choose_checkpoint, find_checkpoint
from ...checkpoint.folder import Choice
from ...checkpoint.resume_changes import recorded_value
from ...checkpoint.statistics import InputStatistics, require_same_statistics
from ...config import get_config, get_config_file, merge_opts, read_config
from ...data import require_registered
from ...errors import check_choice
from ...model_zoo import MODELS, WEIGHTS, resolve_weights
from ...model_zoo.trained import TrainedModel, class_names_of, find_trained_model
from ...modeling.build import meta_model
from ...modeling.split_attention import ONE_IMAGE, SplitAttentionConv2d
from ...text import printable
from ..launch.lock import check_unlocked
from ..training.best import check_best
from ..training.freeze import freeze_parameters
from ..training.optimizer import CLIP_TYPES
from .request import RunRequest

__all__ = [
    "check_batch_size",
    "check_files",
    "check_output_dir",
    "check_same_classes",
    "check_schedule",
    "check_step",
    "check_training",
    "choose_config",
    "choose_device",
    "choose_model_device",
    "choose_weights",
    "expect_published",
]

logger = logging.getLogger(__name__)


def choose_config(request: RunRequest) -> tuple[CfgNode, list[dict], TrainedModel | None]:
    """The request's config, its layers, and the model that ``checkpoint`` names, if it names one.

    The layers say which values were stated where, see :func:`resnest_d2.config.read_config`; of a
    checkpoint, which is not trained, there are none.

    Raises:
        ValueError, KeyError, FileNotFoundError: of either; the data that the checkpoint was
            evaluated on is not known here, and the request has none.
    """
    if request.checkpoint is None:
        return *read_config(request.config, request.opts), None
    trained = find_trained_model(
        request.checkpoint, request.config, trust_pickle=request.trust_pickle
    )
    cfg, stated = trained.cfg, request.opts[0::2]
    unknown = [name for name in cfg.DATASETS.TEST if name not in DatasetCatalog]
    missing = unknown or not cfg.DATASETS.TEST
    if request.config is None and missing and not request.val and "DATASETS.TEST" not in stated:
        raise ValueError(
            f"{trained.weights} was evaluated on {', '.join(unknown) or 'nothing'} in training, "
            "and this process knows no such data set: give --val-json FILE --val-images DIR (in "
            "Python: val=(json file, image folder))"
        )
    if not trained.is_published:
        cfg.OUTPUT_DIR = os.path.dirname(trained.weights) or "."
    merge_opts(cfg, request.opts)
    cfg.MODEL.WEIGHTS = trained.weights
    return cfg, [], trained


def check_same_classes(trained: TrainedModel, data_sets: Iterable[str]) -> None:
    """Classes are numbers to a model: were they others in the data, all would be scored wrong."""
    for name in data_sets:
        found = class_names_of(name)
        if found and trained.class_names and found != trained.class_names:
            data = MetadataCatalog.get(name).get("json_file", name)
            given = (trained.class_names, found)
            ours, theirs = (printable(", ".join(names), 1000) for names in given)
            raise ValueError(
                f"{trained.weights} was trained on the classes {ours}, and {data} has {theirs}: "
                "they must be the same, in the order of their ids"
            )


def expect_published(cfg: CfgNode, request: RunRequest) -> None:
    """Take the values that ``verify`` compares with from the catalog."""
    if not request.verify:
        return
    if not request.eval_only:
        raise ValueError("--verify compares an evaluation: it needs --eval-only")
    recipe = request.config or request.checkpoint.removeprefix("resnest://")
    file = get_config_file(recipe)
    model = MODELS.get(file.stem)
    if model is None or not file.samefile(get_config_file(model.recipe)):
        raise ValueError(f"--verify needs a recipe of the catalog (resnest-d2 zoo), got {recipe}")
    if not model.expected_results:
        raise ValueError(f"--verify: no AP was published for {model.name}")
    data_sets = get_config(model.recipe).DATASETS.TEST
    if request.train or request.val or list(cfg.DATASETS.TEST) != list(data_sets):
        raise ValueError(
            f"--verify: the AP of {model.name} was published for {', '.join(data_sets)}: it needs "
            "that, not --train-json, --val-json or another DATASETS.TEST"
        )
    cfg.TEST.EXPECTED_RESULTS = model.expected_results


def choose_device(device: str, request: RunRequest, key: str) -> str:
    """``device``, or "cpu" where that is a GPU and there is none.

    Raises:
        ValueError: the request's processes and machines cannot be; ``key`` is the device's name.
    """
    for name in ("num_processes", "num_machines"):
        if getattr(request, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(request, name)}")
    if request.num_machines > 1 and request.dist_url == "auto":
        raise ValueError(
            f"--num-machines {request.num_machines} needs --dist-url tcp://HOST:PORT, an address "
            "of machine 0 that the others reach"
        )
    if device.startswith("cuda"):
        available = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not available:
            logger.info(f"No GPU found: {key} is now 'cpu'")
            return "cpu"
        if request.num_processes > available:
            given = "torchrun's --nproc-per-node" if request.dist_url == "env://" else "--num-gpus"
            raise ValueError(f"{given} {request.num_processes}: this machine has {available}")
    return device


def choose_model_device(cfg: CfgNode, request: RunRequest) -> None:
    cfg.MODEL.DEVICE = choose_device(cfg.MODEL.DEVICE, request, "MODEL.DEVICE")
    if cfg.MODEL.DEVICE == "cpu" and cfg.SOLVER.AMP.ENABLED:
        raise ValueError(
            "SOLVER.AMP.ENABLED is float16 training on a GPU, and MODEL.DEVICE is 'cpu': set it to "
            "False, and RESNEST.AMP_DTYPE to 'bfloat16' for mixed precision on the CPU"
        )
    if cfg.MODEL.DEVICE == "cpu" and cfg.RESNEST.AMP_DTYPE == "float16":
        raise ValueError(
            "RESNEST.AMP_DTYPE 'float16' is for training on a GPU, and MODEL.DEVICE is 'cpu': set "
            "it to 'bfloat16' for mixed precision on the CPU"
        )
    if cfg.SOLVER.AMP.ENABLED and cfg.RESNEST.AMP_DTYPE == "bfloat16":
        raise ValueError(
            "SOLVER.AMP.ENABLED means float16, and RESNEST.AMP_DTYPE is 'bfloat16': set one of them"
        )


def _resumes(cfg: CfgNode, request: RunRequest) -> bool:
    return request.resume and RunCheckpointer.has_last(cfg.OUTPUT_DIR)


def choose_weights(cfg: CfgNode, request: RunRequest) -> None:
    """Obey ``init_from``, and take a run's folder for its checkpoint.

    A run that is resumed keeps its own ``MODEL.WEIGHTS``, which it does not read again.
    """
    source = request.init_from
    if source:
        if request.eval_only:
            raise ValueError(
                f"--init-from {source} starts a training; to evaluate it: MODEL.WEIGHTS {source}"
            )
        if "MODEL.WEIGHTS" in request.opts[0::2]:
            raise ValueError(
                f"--init-from {source} and MODEL.WEIGHTS {cfg.MODEL.WEIGHTS} are two sources of "
                "weights: give one of them"
            )
    if _resumes(cfg, request):
        if source or os.path.isdir(cfg.MODEL.WEIGHTS):
            before = _recorded(choose_checkpoint(cfg.OUTPUT_DIR), "MODEL.WEIGHTS")
            cfg.MODEL.WEIGHTS = before if isinstance(before, str) else ""
        return
    if source:
        cfg.MODEL.WEIGHTS = source
    if os.path.isdir(cfg.MODEL.WEIGHTS):
        cfg.MODEL.WEIGHTS = str(find_checkpoint(cfg.MODEL.WEIGHTS, best=True))
        logger.info(f"MODEL.WEIGHTS is now {cfg.MODEL.WEIGHTS}, of that run's folder")


def check_files(cfg: CfgNode, request: RunRequest, trained: TrainedModel | None) -> None:
    """Report missing data and missing weights together: a new user lacks both."""
    data_sets = cfg.DATASETS.TEST
    if not request.eval_only:
        data_sets = (*cfg.DATASETS.TRAIN, *data_sets)
    missing = []
    try:
        require_registered(data_sets)
    except FileNotFoundError as error:
        missing.append(str(error))
    try:
        # Nothing is downloaded for a run that cannot start.
        _check_weights(cfg, request, trained, download=not missing)
    except FileNotFoundError as error:
        missing.append(str(error))
    if missing:
        raise FileNotFoundError("\n".join(missing))


def _check_weights(
    cfg: CfgNode, request: RunRequest, trained: TrainedModel | None, *, download: bool
) -> None:
    """Refuse weights that are not there or do not fit, and random ones that nothing will train."""
    weights = cfg.MODEL.WEIGHTS
    if _resumes(cfg, request):
        _check_resumed(cfg, request)
    elif weights:
        _check_published_statistics(cfg)
        path = resolve_weights(weights, download=download)
        if "://" not in path:  # what is elsewhere is checked when it is loaded
            checkpointer = _checkpointer(cfg, request, whole=request.eval_only)
            if trained and not trained.is_published:  # it was read to find its config
                checkpointer.check_stored(trained.read())
            else:
                checkpointer.check(weights)
    elif request.eval_only:
        raise ValueError(
            "MODEL.WEIGHTS is '': evaluation needs a checkpoint (MODEL.WEIGHTS FILE, or --resume "
            "for the last one of OUTPUT_DIR)"
        )
    elif cfg.MODEL.BACKBONE.FREEZE_AT > 0 and not cfg.RESNEST.ALLOW_FROZEN_RANDOM:
        raise ValueError(
            f"MODEL.WEIGHTS is '' and MODEL.BACKBONE.FREEZE_AT is {cfg.MODEL.BACKBONE.FREEZE_AT}: "
            "the first layers would stay random. For training from scratch set "
            "MODEL.BACKBONE.FREEZE_AT 0, or RESNEST.ALLOW_FROZEN_RANDOM True if you mean it"
        )


def _check_published_statistics(cfg: CfgNode) -> None:
    """Refuse other images than a published file's, before it is read or even fetched."""
    weights = cfg.MODEL.WEIGHTS
    published = WEIGHTS.get(weights.removeprefix("resnest://").partition("?")[0])
    if weights.startswith("resnest://") and published and not cfg.RESNEST.ALLOW_STATISTICS_MISMATCH:
        require_same_statistics(weights, published.statistics, InputStatistics.from_config(cfg))


def _check_resumed(cfg: CfgNode, request: RunRequest) -> None:
    """Refuse a folder that cannot be resumed from, or not with this model and optimiser."""
    choice = choose_checkpoint(
        cfg.OUTPUT_DIR,
        entries=() if request.eval_only else ("trainer",),
        trust_pickle=request.trust_pickle,
    )
    _checkpointer(cfg, request, whole=True).check_stored(choice.outline)
    before = _recorded(choice, "SOLVER.OPTIMIZER")
    if not request.eval_only and before not in (None, cfg.SOLVER.OPTIMIZER):
        raise ValueError(
            f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER!r} and {choice.path} has the state of "
            f"{before!r}: a run cannot be resumed with another optimiser. Start one with "
            "--init-from and another OUTPUT_DIR"
        )


def _recorded(choice: Choice, key: str):
    """A key's value in a checkpoint's config; None where it does not say it."""
    record = choice.outline.metadata.get(RECORD_KEY)
    return recorded_value(record.get("config"), key) if isinstance(record, dict) else None


def _checkpointer(cfg: CfgNode, request: RunRequest, *, whole: bool) -> RunCheckpointer:
    return RunCheckpointer.from_config(
        cfg, meta_model(cfg), whole=whole, trust_pickle=request.trust_pickle
    )


def check_step(cfg: CfgNode) -> None:
    """Raise a ValueError for a key of the training step whose value cannot be."""
    check_choice("SOLVER.OPTIMIZER", cfg.SOLVER.OPTIMIZER, ("SGD", "AdamW"))
    check_choice("RESNEST.AMP_DTYPE", cfg.RESNEST.AMP_DTYPE, ("", "bfloat16", "float16", "auto"))
    decay = cfg.MODEL_EMA.DECAY
    if cfg.MODEL_EMA.ENABLED and not 0 <= decay < 1:
        raise ValueError(f"MODEL_EMA.DECAY must be at least 0 and less than 1, got {decay}")
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED:
        check_choice("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip.CLIP_TYPE, CLIP_TYPES)
        if clip.CLIP_VALUE <= 0:
            raise ValueError(
                f"SOLVER.CLIP_GRADIENTS.CLIP_VALUE must be above 0, got {clip.CLIP_VALUE}"
            )


def check_output_dir(key: str, folder: str, request: RunRequest) -> None:
    """Raise a FileExistsError where training would overwrite another run, or join one."""
    check_unlocked(key, folder, request)
    found = RunCheckpointer.found_in(folder)
    if found and not request.resume:
        raise FileExistsError(
            f"{key} {folder} holds {found[0]} of another run (--resume goes on with it): choose "
            f"another {key}, or remove the folder"
        )


def check_batch_size(key: str, images: int, request: RunRequest, micro_batches: int = 1) -> None:
    """Raise a ValueError where a step's images cannot be shared out to processes and micro-batches.

    Args:
        images: of a step, in all processes together.
        micro_batches: ``RESNEST.ACCUMULATE``.
    """
    processes = request.world_size
    if micro_batches < 1:
        raise ValueError(f"RESNEST.ACCUMULATE must be at least 1, got {micro_batches}")
    if images < 1 or images % (processes * micro_batches):
        each = f" times the {micro_batches} micro-batches of RESNEST.ACCUMULATE"
        raise ValueError(
            f"{key} must be a multiple of the {processes} processes"
            f"{each if micro_batches > 1 else ''}, got {images}"
        )


def check_schedule(cfg: CfgNode) -> None:
    """Raise a ValueError where a schedule trains nothing or stops the engine."""
    solver = cfg.SOLVER
    for key, value, lowest, why in (
        ("SOLVER.MAX_ITER", solver.MAX_ITER, 1, ": nothing would be trained"),
        ("SOLVER.IMS_PER_BATCH", solver.IMS_PER_BATCH, 1, ""),
        ("SOLVER.CHECKPOINT_PERIOD", solver.CHECKPOINT_PERIOD, 1, ""),
        ("SOLVER.WARMUP_ITERS", solver.WARMUP_ITERS, 0, ""),
    ):
        if value < lowest:
            raise ValueError(f"{key} must be at least {lowest}, got {value}{why}")
    if not 0 <= solver.BASE_LR < math.inf:
        raise ValueError(f"SOLVER.BASE_LR must be a number, at least 0, got {solver.BASE_LR}")
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and not solver.BASE_LR and solver.BASE_LR_END:
        raise ValueError(
            f"SOLVER.BASE_LR is 0, and a cosine never reaches SOLVER.BASE_LR_END "
            f"{solver.BASE_LR_END} from there: set that to 0, or SOLVER.BASE_LR above it"
        )
    steps = list(solver.STEPS)
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and steps != sorted(set(steps)):
        raise ValueError(f"SOLVER.STEPS must rise, got {solver.STEPS}")


def check_training(cfg: CfgNode, request: RunRequest) -> None:
    check_output_dir("OUTPUT_DIR", cfg.OUTPUT_DIR, request)
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty: name a data set, or give --train-json FILE")
    check_schedule(cfg)
    micro_batches = cfg.RESNEST.ACCUMULATE
    check_batch_size("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH, request, micro_batches)
    if cfg.RESNEST.KEEP_CHECKPOINTS < 0:
        raise ValueError(
            f"RESNEST.KEEP_CHECKPOINTS must be at least 0, got {cfg.RESNEST.KEEP_CHECKPOINTS}"
        )
    check_best(cfg)
    model = meta_model(cfg)
    freeze_parameters(model, cfg.RESNEST.FREEZE)
    if cfg.RESNEST.FREEZE and not cfg.MODEL.WEIGHTS and not _resumes(cfg, request):
        logger.warning("MODEL.WEIGHTS is '': what RESNEST.FREEZE matches stays random")
    processes = request.world_size
    resnets = cfg.MODEL.RESNETS
    own_statistics = resnets.NORM == "BN" or (resnets.NORM.endswith("SyncBN") and processes == 1)
    attends = any(
        isinstance(module, SplitAttentionConv2d)
        and isinstance(module.bn1, _BatchNorm)
        and module.bn1.training
        for module in model.modules()
    )
    if cfg.SOLVER.IMS_PER_BATCH == processes * micro_batches and own_statistics and attends:
        raise ValueError(ONE_IMAGE)
    if cfg.RESNEST.FREEZE_NORM.ITER and cfg.TEST.PRECISE_BN.ENABLED:
        raise ValueError(
            "TEST.PRECISE_BN.ENABLED must be False where RESNEST.FREEZE_NORM.ITER is set: the "
            "statistics are fixed during training and must not change after it"
        )
    names = class_names_of(cfg.DATASETS.TRAIN[0])
    classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    rcnn = cfg.MODEL.META_ARCHITECTURE in ("GeneralizedRCNN", "PanopticFPN")
    if rcnn and classes < len(names):
        raise ValueError(
            f"MODEL.ROI_HEADS.NUM_CLASSES must be at least {len(names)}, the number of classes of "
            f"{cfg.DATASETS.TRAIN[0]}, got {classes}"
        )

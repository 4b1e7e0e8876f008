"""Choices and refusals before a process is started or a data set is read into memory."""

import logging
import os
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ...checkpoint import RECORD_KEY, RunCheckpointer, choose_checkpoint, find_checkpoint
from ...checkpoint.folder import Choice
from ...checkpoint.resume_changes import recorded_value
from ...checkpoint.statistics import InputStatistics, require_same_statistics
from ...config import get_config, get_config_file, read_config
from ...data import require_registered
from ...errors import check_choice
from ...model_zoo import MODELS, WEIGHTS, resolve_weights
from ...model_zoo.trained import TrainedModel, find_trained_model
from ...modeling.build import meta_model
from ...modeling.split_attention import ONE_IMAGE, SplitAttentionConv2d
from ...modeling.windows import PUBLISHED_SCALES
from ..launch.lock import check_unlocked
from ..training.best import check_best
from ..training.freeze import freeze_parameters
from ..training.optimizer import CLIP_TYPES
from .classes import check_class_order
from .given_values import GivenValues
from .request import RunRequest
from .schedule import check_schedule

logger = logging.getLogger(__name__)


def choose_config(request: RunRequest) -> tuple[CfgNode, GivenValues, TrainedModel | None]:
    """The config, the values that the user gave, and the model of ``checkpoint``, if there is one.

    Raises:
        ValueError: also if the checkpoint's data is unknown here, and the request names no other.
    """
    if request.checkpoint is None:
        cfg, layers = read_config(request.config, request.opts)
        return cfg, GivenValues(layers), None
    trained = find_trained_model(
        request.checkpoint, request.config, trust_pickle=request.trust_pickle
    )
    trained.cfg.MODEL.WEIGHTS = trained.weights
    if not trained.is_published:
        trained.cfg.OUTPUT_DIR = os.path.dirname(trained.weights) or "."
    cfg, layers = read_config(trained.cfg, request.opts)
    given, tests = GivenValues(layers), trained.cfg.DATASETS.TEST
    unknown = [name for name in tests if name not in DatasetCatalog]
    named = request.config or request.val or given.in_opts("DATASETS.TEST")
    if not named and (unknown or not tests):
        raise ValueError(
            f"{trained.weights} was evaluated on {', '.join(unknown) or 'nothing'} in training, "
            "and this process knows no such data set: give --val-images DIR, with --val-json FILE "
            "or --val-labels DIR where the model needs it (in Python: val=…)"
        )
    return cfg, given, trained


def expect_published(cfg: CfgNode, request: RunRequest) -> None:
    """Take the AP that ``verify`` compares with from the catalog."""
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
    if model.published.miou and not cfg.RESNEST.SEGMENT.SCALES:
        cfg.RESNEST.SEGMENT.SCALES = PUBLISHED_SCALES
        logger.info(f"RESNEST.SEGMENT.SCALES is now {PUBLISHED_SCALES}, as published")


def choose_device(device: str, request: RunRequest, key: str) -> str:
    """``device``, the value of ``key``, or "cpu" if it is a GPU and this machine has none.

    Raises:
        ValueError: invalid numbers of processes and machines.
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
    if cfg.MODEL.DEVICE == "cpu":
        for key, is_float16 in (
            ("SOLVER.AMP.ENABLED", cfg.SOLVER.AMP.ENABLED),
            ("RESNEST.AMP_DTYPE 'float16'", cfg.RESNEST.AMP_DTYPE == "float16"),
        ):
            if is_float16:
                raise ValueError(
                    f"{key} is float16 training on a GPU, and MODEL.DEVICE is 'cpu': set "
                    "SOLVER.AMP.ENABLED False, and RESNEST.AMP_DTYPE to 'bfloat16' for mixed "
                    "precision on the CPU"
                )
    if cfg.SOLVER.AMP.ENABLED and cfg.RESNEST.AMP_DTYPE == "bfloat16":
        raise ValueError(
            "SOLVER.AMP.ENABLED means float16, and RESNEST.AMP_DTYPE is 'bfloat16': set one of them"
        )


def _resumes(cfg: CfgNode, request: RunRequest) -> bool:
    return request.resume and RunCheckpointer.has_last(cfg.OUTPUT_DIR)


def choose_weights(cfg: CfgNode, request: RunRequest, given: GivenValues) -> None:
    """Use ``init_from``, and replace a run's folder by its checkpoint.

    A run that is resumed keeps its own ``MODEL.WEIGHTS``, which it does not read again.
    """
    source = request.init_from
    if source and request.eval_only:
        raise ValueError(
            f"--init-from {source} starts a training; to evaluate it: MODEL.WEIGHTS {source}"
        )
    if source and given.in_opts("MODEL.WEIGHTS"):
        raise ValueError(
            f"--init-from {source} and MODEL.WEIGHTS {cfg.MODEL.WEIGHTS} are two sources of "
            "weights: give one of them"
        )
    if _resumes(cfg, request):
        if source or os.path.isdir(cfg.MODEL.WEIGHTS):
            before = _recorded(choose_checkpoint(cfg.OUTPUT_DIR), "MODEL.WEIGHTS")
            cfg.MODEL.WEIGHTS = before if isinstance(before, str) else ""
        return
    cfg.MODEL.WEIGHTS = source or cfg.MODEL.WEIGHTS
    if os.path.isdir(cfg.MODEL.WEIGHTS):
        cfg.MODEL.WEIGHTS = str(find_checkpoint(cfg.MODEL.WEIGHTS, best=True))
        logger.info(f"MODEL.WEIGHTS is now {cfg.MODEL.WEIGHTS}, of that run's folder")


def check_files(cfg: CfgNode, request: RunRequest, trained: TrainedModel | None) -> None:
    """Report missing data and missing weights together: new users often lack both."""
    missing = []
    try:
        train = () if request.eval_only else cfg.DATASETS.TRAIN
        require_registered((*train, *cfg.DATASETS.TEST))
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
    """Refuse missing weights, weights that do not fit, and random ones that nothing trains."""
    weights = cfg.MODEL.WEIGHTS
    if _resumes(cfg, request):
        _check_resumed(cfg, request)
    elif weights:
        published = WEIGHTS.get(weights.removeprefix("resnest://").partition("?")[0])
        known = published and weights.startswith("resnest://")
        if known and not cfg.RESNEST.ALLOW_STATISTICS_MISMATCH:  # before it is downloaded
            ours = InputStatistics.from_config(cfg)
            require_same_statistics(weights, published.statistics, ours)
        path = resolve_weights(weights, download=download)
        if "://" not in path:  # remote weights are checked when they are loaded
            checkpointer = _checkpointer(cfg, request, whole=request.eval_only)
            if trained and not trained.is_published:  # read already, for its config
                stored = trained.read()
                checkpointer.check_stored(stored)
            else:
                stored = checkpointer.check(weights)
            if request.eval_only:
                check_class_order(cfg, cfg.DATASETS.TEST, stored.path, stored.metadata)
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


def _check_resumed(cfg: CfgNode, request: RunRequest) -> None:
    """Refuse a folder without a usable checkpoint, or with one of another model or optimiser."""
    choice = choose_checkpoint(
        cfg.OUTPUT_DIR,
        entries=() if request.eval_only else ("trainer",),
        trust_pickle=request.trust_pickle,
    )
    _checkpointer(cfg, request, whole=True).check_stored(choice.outline)
    data_sets = cfg.DATASETS.TEST if request.eval_only else cfg.DATASETS.TRAIN
    check_class_order(cfg, data_sets, choice.path, choice.outline.metadata)
    before = _recorded(choice, "SOLVER.OPTIMIZER")
    if not request.eval_only and before not in (None, cfg.SOLVER.OPTIMIZER):
        raise ValueError(
            f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER!r} and {choice.path} has the state of "
            f"{before!r}: a run cannot be resumed with another optimiser. Start one with "
            "--init-from and another OUTPUT_DIR"
        )


def _recorded(choice: Choice, key: str):
    """A key's value in a checkpoint's config; None where it has no such key."""
    record = choice.outline.metadata.get(RECORD_KEY)
    return recorded_value(record.get("config"), key) if isinstance(record, dict) else None


def _checkpointer(cfg: CfgNode, request: RunRequest, *, whole: bool) -> RunCheckpointer:
    return RunCheckpointer.from_config(
        cfg, meta_model(cfg), whole=whole, trust_pickle=request.trust_pickle
    )


def check_step(cfg: CfgNode) -> None:
    """Raise a ValueError for an invalid value of the training step's keys."""
    check_choice("SOLVER.OPTIMIZER", cfg.SOLVER.OPTIMIZER, ("SGD", "AdamW"))
    check_choice("RESNEST.AMP_DTYPE", cfg.RESNEST.AMP_DTYPE, ("", "bfloat16", "float16", "auto"))
    if cfg.SOLVER.BACKBONE_MULTIPLIER < 0:
        raise ValueError(
            f"SOLVER.BACKBONE_MULTIPLIER must be at least 0, got {cfg.SOLVER.BACKBONE_MULTIPLIER}"
        )
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


def require_folder(key: str, folder: str) -> None:
    """Raise a ValueError where ``folder`` cannot be made, before a log is written into a file."""
    if not folder:
        raise ValueError(f"{key} must be a folder, got ''")
    for path in (Path(folder), *Path(folder).parents) if "://" not in folder else ():
        if path.exists():
            if not path.is_dir():
                raise ValueError(f"{key} must be a folder, got {folder}: {path} is a file")
            return


def check_output_dir(key: str, folder: str, request: RunRequest) -> None:
    """Raise a FileExistsError where another run trains in ``folder``, or has left its files."""
    check_unlocked(key, folder, request)
    found = RunCheckpointer.found_in(folder)
    if found and not request.resume:
        raise FileExistsError(
            f"{key} {folder} holds {found[0]} of another run (--resume goes on with it): choose "
            f"another {key}, or remove the folder"
        )


def check_batch_size(key: str, images: int, request: RunRequest, micro_batches: int = 1) -> None:
    """Raise a ValueError unless processes and micro-batches get equal shares of a step's images.

    Args:
        images: per step, in all processes together.
        micro_batches: ``RESNEST.ACCUMULATE``.
    """
    processes = request.world_size
    if images < 1 or images % (processes * micro_batches):
        each = f" times the {micro_batches} micro-batches of RESNEST.ACCUMULATE"
        raise ValueError(
            f"{key} must be a multiple of the {processes} processes"
            f"{each if micro_batches > 1 else ''}, got {images}"
        )


def check_training(cfg: CfgNode, request: RunRequest) -> None:
    check_output_dir("OUTPUT_DIR", cfg.OUTPUT_DIR, request)
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty: name a data set, or give --train-json FILE")
    check_schedule(cfg)
    images, micro_batches = cfg.SOLVER.IMS_PER_BATCH, cfg.RESNEST.ACCUMULATE
    check_batch_size("SOLVER.IMS_PER_BATCH", images, request, micro_batches)
    check_best(cfg)
    model = meta_model(cfg)
    freeze_parameters(model, cfg.RESNEST.FREEZE)
    if cfg.RESNEST.FREEZE and not cfg.MODEL.WEIGHTS and not _resumes(cfg, request):
        logger.warning("MODEL.WEIGHTS is '': what RESNEST.FREEZE matches stays random")
    processes = request.world_size
    norm = cfg.MODEL.RESNETS.NORM
    own_statistics = norm == "BN" or (norm.endswith("SyncBN") and processes == 1)
    attends = any(
        isinstance(module, SplitAttentionConv2d)
        and isinstance(module.bn1, _BatchNorm)
        and module.bn1.training
        for module in model.modules()
    )
    if images == processes * micro_batches and own_statistics and attends:
        raise ValueError(ONE_IMAGE)
    if cfg.RESNEST.FREEZE_NORM.ITER and cfg.TEST.PRECISE_BN.ENABLED:
        raise ValueError(
            "TEST.PRECISE_BN.ENABLED must be False where RESNEST.FREEZE_NORM.ITER is set: the "
            "statistics are fixed during training and must not change after it"
        )

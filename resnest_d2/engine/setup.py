"""From what a user asks for to a run: config, data sets, device, checks, processes.

Everything that can be refused is refused by :func:`prepare`, before a process is started or a
data set is read into memory.
"""

import argparse
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import default_setup, launch
from detectron2.evaluation import verify_results
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..checkpoint import RunCheckpointer, find_checkpoint
from ..checkpoint.statistics import InputStatistics, require_same_statistics
from ..config import get_config, get_config_file
from ..data import (
    CocoSummary,
    check_coco_json,
    check_jitter,
    check_same_classes,
    register_coco,
    require_registered,
)
from ..evaluation import write_results
from ..model_zoo import MODELS, WEIGHTS, resolve_weights
from ..modeling.checks import check_choice
from ..modeling.split_attention import ONE_IMAGE
from .tasks import check_tasks
from .trainer import Trainer

__all__ = [
    "RunRequest",
    "check_batch_size",
    "check_output_dir",
    "choose_device",
    "launch_processes",
    "prepare",
    "run",
    "show_log",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRequest:
    """A training or evaluation run, as asked for.

    Args:
        config: a packaged config's name or a file.
        opts: KEY VALUE pairs that override it.
        train, val: own COCO-format data as (json file, image folder) pairs; their categories set
            the numbers of classes and keypoints. Empty: the config's data sets.
        resume: go on from the last checkpoint of ``OUTPUT_DIR``.
        eval_only: evaluate ``MODEL.WEIGHTS`` (or, with ``resume``, the last checkpoint).
        verify: after ``eval_only``, compare with the catalog's AP and exit with 1 where it differs.
        trust_pickle: load weights even from a pickle that can run code.
        output_json: file for the metrics.
        num_processes: processes on this machine; one per GPU, or on the CPU.
        num_machines, machine_rank, dist_url: see Detectron2's ``launch``.
    """

    config: str
    opts: tuple[str, ...] = ()
    train: tuple[tuple[str, str], ...] = ()
    val: tuple[tuple[str, str], ...] = ()
    resume: bool = False
    eval_only: bool = False
    verify: bool = False
    trust_pickle: bool = False
    output_json: str | None = None
    num_processes: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"


def prepare(request: RunRequest) -> CfgNode:
    """Check a request and return its frozen config, with its data sets registered.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, where, and what is
            allowed.
    """
    cfg = get_config(request.config, request.opts)
    _expect_published(cfg, request)
    _use_own_data(cfg, request)
    _choose_device(cfg, request)
    cfg.freeze()

    check_choice("RESNEST.OPTIMIZER", cfg.RESNEST.OPTIMIZER, ("SGD", "AdamW"))
    check_choice("RESNEST.AMP_DTYPE", cfg.RESNEST.AMP_DTYPE, ("", "bfloat16", "auto"))
    check_jitter(cfg)
    with torch.device("meta"):  # no memory, no time: only the checks of the builders
        build_backbone(cfg)
    _check_files(cfg, request)
    check_tasks(cfg, () if request.eval_only else cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    if not request.eval_only:
        _check_training(cfg, request)
    return cfg


def run(request: RunRequest) -> dict:
    """Train or evaluate as requested, in as many processes as requested.

    Returns:
        Metrics of the last evaluation, ``{"bbox": {"AP": …}, …}`` (by data set where there are
        several); empty where several processes were started: they write ``output_json``.
    """
    show_log()
    cfg = prepare(request)
    processes = request.num_processes * request.num_machines
    if processes == 1:
        return _work(cfg, request)
    launch_processes(_prepare_and_work, request, on_cpu=cfg.MODEL.DEVICE == "cpu")
    return {}


def launch_processes(
    work: Callable[[RunRequest], None], request: RunRequest, *, on_cpu: bool
) -> None:
    """Call ``work(request)`` in each of the request's processes."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}
    if on_cpu and "OMP_NUM_THREADS" not in os.environ:
        hidden["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // request.num_processes))
    saved = {name: os.environ.get(name) for name in hidden}
    os.environ.update(hidden)  # the processes inherit it: without a GPU, launch chooses gloo
    try:
        launch(
            work,
            request.num_processes,
            num_machines=request.num_machines,
            machine_rank=request.machine_rank,
            dist_url=request.dist_url,
            args=(request,),
        )
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _prepare_and_work(request: RunRequest) -> None:
    _work(prepare(request), request)  # a new process knows no data set yet


def _work(cfg: CfgNode, request: RunRequest) -> dict:
    """One process's share of a run."""
    if request.eval_only:
        results = _evaluate(cfg, request)
    else:
        _set_up(cfg, request)
        trainer = Trainer(cfg, trust_pickle=request.trust_pickle)
        trainer.resume_or_load(resume=request.resume)
        trainer.train()
        results = trainer.results
    if request.output_json and comm.is_main_process():
        write_results(results, request.output_json)
    if request.verify and comm.is_main_process():
        verify_results(cfg, results)
    return results


def show_log(folder: str | None = None) -> None:
    """Show this package's log like Detectron2's: on the terminal, and in ``folder``/log.txt."""
    setup_logger(
        folder,
        distributed_rank=comm.get_rank(),
        name="resnest_d2",
        enable_propagation=True,
        configure_stdout=not logging.getLogger("resnest_d2").handlers,
    )


def _set_up(cfg: CfgNode, request: RunRequest) -> None:
    show_log(cfg.OUTPUT_DIR)
    default_setup(cfg, argparse.Namespace(**{**vars(request), "config_file": ""}))


def _evaluate(cfg: CfgNode, request: RunRequest) -> dict:
    log_cfg = cfg.clone()
    log_cfg.defrost()
    log_cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "inference")  # the run's config.yaml stays
    _set_up(log_cfg, request)
    model = Trainer.build_model(cfg)
    checkpointer = RunCheckpointer.from_config(
        cfg, model, cfg.OUTPUT_DIR, whole=True, trust_pickle=request.trust_pickle
    )
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=request.resume)
    return Trainer.test(cfg, model)


def _use_own_data(cfg: CfgNode, request: RunRequest) -> None:
    """Register the request's files; take class count, keypoints and mask format from them."""
    pairs = request.train + request.val
    if not pairs:
        return
    summaries = [check_coco_json(*pair) for pair in pairs]
    for summary in summaries[1:]:
        check_same_classes(summaries[0], summary)
    if request.train:
        cfg.DATASETS.TRAIN = tuple(register_coco(*pair) for pair in request.train)
        cfg.DATASETS.TEST = ()  # the config's own would have other classes
    if request.val:
        cfg.DATASETS.TEST = tuple(register_coco(*pair) for pair in request.val)
    classes = len(summaries[0].class_names)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.MODEL.RETINANET.NUM_CLASSES = classes
    if cfg.MODEL.MASK_ON:
        for pair, summary in zip(request.train, summaries, strict=False):
            if not summary.has_masks:
                raise ValueError(
                    f"{pair[0]} has no 'segmentation', and MODEL.MASK_ON is True: choose a config "
                    "without masks (faster_rcnn_…, cascade_rcnn_…)"
                )
            if summary.has_rle and cfg.INPUT.MASK_FORMAT != "bitmask":
                logger.info(f"{pair[0]} has masks in RLE: INPUT.MASK_FORMAT is now 'bitmask'")
                cfg.INPUT.MASK_FORMAT = "bitmask"
    if cfg.MODEL.KEYPOINT_ON:
        _use_own_keypoints(cfg, summaries)


def _use_own_keypoints(cfg: CfgNode, summaries: list[CocoSummary]) -> None:
    """Refuse files that keypoints cannot be learned or scored from, and take their number."""
    first = summaries[0]
    for summary in summaries:
        if summary.without_keypoints:
            raise ValueError(
                f"{summary.without_keypoints} of the {summary.num_annotations} annotations of "
                f"{summary.json_file} lack 'keypoints' or 'num_keypoints', and MODEL.KEYPOINT_ON "
                "is True"
            )
        if summary.keypoint_names != first.keypoint_names:
            raise ValueError(
                f"the keypoints of {first.json_file} and {summary.json_file} differ: "
                f"{first.keypoint_names} and {summary.keypoint_names}"
            )
    number = len(first.keypoint_names)
    if number and cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS != number:
        logger.info(f"The data has {number} keypoints: ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is now that")
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = number


def _expect_published(cfg: CfgNode, request: RunRequest) -> None:
    """Take the values that ``verify`` compares with from the catalog."""
    if not request.verify:
        return
    if not request.eval_only:
        raise ValueError("--verify compares an evaluation: it needs --eval-only")
    file = get_config_file(request.config)
    model = MODELS.get(file.stem)
    if model is None or not file.samefile(get_config_file(model.recipe)):
        raise ValueError(
            f"--verify needs a recipe of the catalog (resnest-d2 zoo), got {request.config}"
        )
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
            raise ValueError(f"--num-gpus {request.num_processes}: this machine has {available}")
    return device


def _choose_device(cfg: CfgNode, request: RunRequest) -> None:
    cfg.MODEL.DEVICE = choose_device(cfg.MODEL.DEVICE, request, "MODEL.DEVICE")
    if cfg.MODEL.DEVICE == "cpu" and cfg.SOLVER.AMP.ENABLED:
        raise ValueError(
            "SOLVER.AMP.ENABLED is float16 training on a GPU, and MODEL.DEVICE is 'cpu': set it to "
            "False, and RESNEST.AMP_DTYPE to 'bfloat16' for mixed precision on the CPU"
        )


def _resumes(cfg: CfgNode, request: RunRequest) -> bool:
    return request.resume and RunCheckpointer.has_last(cfg.OUTPUT_DIR)


def _check_files(cfg: CfgNode, request: RunRequest) -> None:
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
        _check_weights(cfg, request, download=not missing)
    except FileNotFoundError as error:
        missing.append(str(error))
    if missing:
        raise FileNotFoundError("\n".join(missing))


def _check_weights(cfg: CfgNode, request: RunRequest, *, download: bool) -> None:
    """Refuse weights that are not there or do not fit, and random ones that nothing will train."""
    weights = cfg.MODEL.WEIGHTS
    if _resumes(cfg, request):
        _check_fit(cfg, request, str(find_checkpoint(cfg.OUTPUT_DIR)), whole=True)
    elif weights:
        _check_published_statistics(cfg)
        path = resolve_weights(weights, download=download)
        if "://" not in path:  # what is elsewhere is checked when it is loaded
            _check_fit(cfg, request, weights, whole=request.eval_only)
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


def _check_fit(cfg: CfgNode, request: RunRequest, uri: str, *, whole: bool) -> None:
    """Refuse a file that loading would refuse."""
    with torch.device("meta"):  # no memory, no time: only names and shapes
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    RunCheckpointer.from_config(cfg, model, whole=whole, trust_pickle=request.trust_pickle).check(
        uri
    )


def check_output_dir(key: str, folder: str, request: RunRequest) -> None:
    """Raise a FileExistsError where training would overwrite another run."""
    found = RunCheckpointer.found_in(folder)
    if found and not (request.resume and RunCheckpointer.has_last(folder)):
        go_on = "no last_checkpoint to resume" if request.resume else "--resume goes on with it"
        raise FileExistsError(
            f"{key} {folder} holds {found[0]} of another run ({go_on}): choose another {key}, "
            "or remove the folder"
        )


def check_batch_size(key: str, images: int, request: RunRequest) -> None:
    """Raise a ValueError where a step's images cannot be shared out to the processes."""
    processes = request.num_processes * request.num_machines
    if images % processes:
        raise ValueError(f"{key} must be a multiple of the {processes} processes, got {images}")


def _check_training(cfg: CfgNode, request: RunRequest) -> None:
    check_output_dir("OUTPUT_DIR", cfg.OUTPUT_DIR, request)
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty: name a data set, or give --train-json FILE")
    check_batch_size("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH, request)
    processes = request.num_processes * request.num_machines
    resnets = cfg.MODEL.RESNETS
    own_statistics = resnets.NORM == "BN" or (resnets.NORM.endswith("SyncBN") and processes == 1)
    attends = cfg.MODEL.BACKBONE.NAME.startswith("build_resnest") and resnets.RADIX > 0
    if cfg.SOLVER.IMS_PER_BATCH == processes and own_statistics and attends:
        raise ValueError(ONE_IMAGE)
    if cfg.RESNEST.FREEZE_NORM.ITER and cfg.TEST.PRECISE_BN.ENABLED:
        raise ValueError(
            "TEST.PRECISE_BN.ENABLED must be False where RESNEST.FREEZE_NORM.ITER is set: the "
            "statistics are fixed during training and must not change after it"
        )
    names = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes
    classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    rcnn = cfg.MODEL.META_ARCHITECTURE in ("GeneralizedRCNN", "PanopticFPN")
    if rcnn and classes < len(names):
        raise ValueError(
            f"MODEL.ROI_HEADS.NUM_CLASSES must be at least {len(names)}, the number of classes of "
            f"{cfg.DATASETS.TRAIN[0]}, got {classes}"
        )

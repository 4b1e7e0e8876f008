"""From what a user asks for to a run: config, data sets, device, checks, processes.

Everything that can be refused is refused by :func:`prepare`, before a process is started or a
data set is read into memory.
"""

import argparse
import logging
import os

import torch

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.modeling import build_backbone
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ...checkpoint import RECORD_KEY, RunCheckpointer
from ...checkpoint.resume_changes import changed_keys
from ...config import stated_layers
from ...data import SAMPLERS, check_jitter, check_sizes
from ...data.intensity import Intensity
from ...errors import check_choice
from ...evaluation import IMPLEMENTATIONS, write_results
from ...inference import optimize_for_inference
from ..diagnosis.run_errors import hide_explained, only_warnings
from ..launch.lock import locked
from ..launch.processes import run_in_processes
from ..launch.torchrun import check_together, process_rank
from ..training.records import protected_log_files
from ..training.trainer import Trainer, add_checkpointing, merge_results
from .config_checks import (
    check_files,
    check_same_classes,
    check_step,
    check_training,
    choose_config,
    choose_model_device,
    choose_weights,
    expect_published,
)
from .own_data import log_bad_data, use_own_data
from .request import RunRequest
from .schedule import schedule_origin, set_schedule
from .seeds import fix_seed
from .tasks import check_tasks, check_test_augmentation

__all__ = ["prepare", "run", "show_log"]

logger = logging.getLogger(__name__)


def prepare(request: RunRequest) -> CfgNode:
    """Check a request and return its frozen config, with its data sets registered.

    Processes that torchrun has started check it together: what one refuses, all refuse.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, where, and what is
            allowed.
    """
    return check_together(_prepare, request)


def _prepare(request: RunRequest) -> CfgNode:
    cfg, trained = choose_config(request)
    expect_published(cfg, request)
    use_own_data(cfg, request)
    choose_weights(cfg, request)
    choose_model_device(cfg, request)
    cfg.freeze()

    check_step(cfg)
    check_choice("DATALOADER.SAMPLER_TRAIN", cfg.DATALOADER.SAMPLER_TRAIN, SAMPLERS)
    check_choice("RESNEST.EVALUATOR", cfg.RESNEST.EVALUATOR, IMPLEMENTATIONS)
    check_jitter(cfg)
    Intensity.from_config(cfg)
    with torch.device("meta"):  # no memory, no time: only the checks of the builders
        add_checkpointing(build_backbone(cfg), cfg)
    if trained and request.config is None:
        check_same_classes(trained, cfg.DATASETS.TEST)
    check_files(cfg, request)
    check_test_augmentation(cfg)
    check_tasks(cfg, () if request.eval_only else cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    if not request.eval_only:
        check_sizes(cfg)
        set_schedule(cfg, stated_layers(request.config, request.opts))
        check_training(cfg, request)
    return cfg


def run(request: RunRequest) -> dict:
    """Train or evaluate as requested, in as many processes as requested.

    In processes that torchrun has started, this one joins their group and does its share.

    Returns:
        Metrics of the last evaluation, ``{"bbox": {"AP": …}, …}`` (by data set where there are
        several); empty in all of torchrun's processes but the first, and on machines of another
        rank than 0.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: see :func:`prepare`.
        RunError: a process that was started here has failed.
    """
    with only_warnings(request.quiet):
        show_log()
        return run_in_processes(
            prepare,
            _work,
            request,
            on_cpu=lambda cfg: cfg.MODEL.DEVICE == "cpu",
            guard=lambda cfg: locked("OUTPUT_DIR", cfg.OUTPUT_DIR, request),
        )


def _work(cfg: CfgNode, request: RunRequest) -> dict:
    """One process's share of a run."""
    with only_warnings(request.quiet):
        return _do(cfg, request)


def _do(cfg: CfgNode, request: RunRequest) -> dict:
    if request.eval_only:
        results = _evaluate(cfg, request)
    else:
        show_log(cfg.OUTPUT_DIR)
        cfg = fix_seed(cfg, request)
        _set_up(cfg, request)
        origin = schedule_origin(cfg, stated_layers(request.config, request.opts))
        trainer = Trainer(cfg, trust_pickle=request.trust_pickle, origin=origin)
        trainer.resume_or_load(resume=request.resume)
        if request.init_from and trainer.start_iter:
            logger.info(f"--init-from {request.init_from} is not used: the run is resumed")
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
        distributed_rank=process_rank(),
        name="resnest_d2",
        enable_propagation=True,
        configure_stdout=not logging.getLogger("resnest_d2").handlers,
    )


def _set_up(cfg: CfgNode, request: RunRequest) -> None:
    with protected_log_files():
        default_setup(cfg, argparse.Namespace(**{**vars(request), "config_file": ""}))
    hide_explained()
    log_bad_data(cfg.OUTPUT_DIR, request)


def _evaluate(cfg: CfgNode, request: RunRequest) -> dict:
    log_cfg = cfg.clone()
    log_cfg.defrost()
    log_cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "inference")  # the run's config.yaml stays
    show_log(log_cfg.OUTPUT_DIR)
    _set_up(log_cfg, request)
    model = Trainer.build_model(cfg)
    checkpointer = RunCheckpointer.from_config(
        cfg, model, cfg.OUTPUT_DIR, whole=True, trust_pickle=request.trust_pickle
    )
    loaded = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=request.resume)
    _compare_intensity(cfg, loaded.get(RECORD_KEY))
    if request.optimize:
        model = optimize_for_inference(model)
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results = merge_results(results, Trainer.test_augmented(cfg, model))
    return results


def _compare_intensity(cfg: CfgNode, record: dict | None) -> None:
    """Warn where a checkpoint was trained with another rule for images of more than 8 bits."""
    config = record.get("config") if isinstance(record, dict) else None
    for key, before, now in changed_keys(config, cfg.dump()):
        if key.startswith("RESNEST.INTENSITY."):
            logger.warning(
                f"{key} is {now}, and the weights were trained with {before}: images of more than "
                f"8 bits are read otherwise than in training. Set {key} to {before}"
            )

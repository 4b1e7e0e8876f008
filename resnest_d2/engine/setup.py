"""From what a user asks for to a run: config, data sets, device, checks, processes.

Everything that can be refused is refused by :func:`prepare`, before a process is started or a
data set is read into memory.
"""

import argparse
import dataclasses
import json
import logging
import os
import tempfile
from pathlib import Path

import torch

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.modeling import build_backbone
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..checkpoint import RunCheckpointer
from ..config import get_config, stated_layers
from ..data import check_jitter
from ..evaluation import write_results
from ..modeling.checks import check_choice
from .checks import check_files, check_training, choose_model_device, expect_published
from .own_data import use_own_data
from .processes import launch_processes
from .request import RunRequest
from .schedule import schedule_origin, set_schedule
from .tasks import check_tasks
from .trainer import Trainer

__all__ = ["prepare", "run", "show_log"]


def prepare(request: RunRequest) -> CfgNode:
    """Check a request and return its frozen config, with its data sets registered.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, where, and what is
            allowed.
    """
    cfg = get_config(request.config, request.opts)
    expect_published(cfg, request)
    use_own_data(cfg, request)
    choose_model_device(cfg, request)
    cfg.freeze()

    check_choice("RESNEST.OPTIMIZER", cfg.RESNEST.OPTIMIZER, ("SGD", "AdamW"))
    check_choice("RESNEST.AMP_DTYPE", cfg.RESNEST.AMP_DTYPE, ("", "bfloat16", "auto"))
    check_jitter(cfg)
    with torch.device("meta"):  # no memory, no time: only the checks of the builders
        build_backbone(cfg)
    check_files(cfg, request)
    check_tasks(cfg, () if request.eval_only else cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    if not request.eval_only:
        set_schedule(cfg, stated_layers(request.config, request.opts))
        check_training(cfg, request)
    return cfg


def run(request: RunRequest) -> dict:
    """Train or evaluate as requested, in as many processes as requested.

    Returns:
        Metrics of the last evaluation, ``{"bbox": {"AP": …}, …}`` (by data set where there are
        several); empty on machines of another rank than 0.
    """
    show_log()
    cfg = prepare(request)
    if request.world_size == 1:
        return _work(cfg, request)
    with tempfile.TemporaryDirectory() as folder:  # the way back from the processes
        output = request.output_json or os.path.join(folder, "results.json")
        launch_processes(
            _prepare_and_work,
            dataclasses.replace(request, output_json=output),
            on_cpu=cfg.MODEL.DEVICE == "cpu",
        )
        return _read_results(output) if request.machine_rank == 0 else {}


def _read_results(path: str) -> dict:
    """What ``write_results`` wrote; a number that does not exist is NaN, as in an evaluation."""

    def numbers(entries: dict) -> dict:
        return {key: float("nan") if value is None else value for key, value in entries.items()}

    return json.loads(Path(path).read_text(), object_hook=numbers)


def _prepare_and_work(request: RunRequest) -> None:
    _work(prepare(request), request)  # a new process knows no data set yet


def _work(cfg: CfgNode, request: RunRequest) -> dict:
    """One process's share of a run."""
    if request.eval_only:
        results = _evaluate(cfg, request)
    else:
        _set_up(cfg, request)
        origin = schedule_origin(cfg, stated_layers(request.config, request.opts))
        trainer = Trainer(cfg, trust_pickle=request.trust_pickle, origin=origin)
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

"""A run from a YAML config: prepared once, then trained or evaluated in each of its processes."""

import logging
import os

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ..checkpoint import RECORD_KEY, RunCheckpointer
from ..checkpoint.resume_changes import changed_keys
from ..evaluation import write_results
from ..inference import optimize_for_inference
from .diagnosis.run_errors import only_warnings
from .launch.processes import run_in_processes
from .prepare.own_data import log_bad_data
from .prepare.plan import Plan, prepare
from .prepare.request import RunRequest
from .prepare.seeds import fix_seed
from .training.records import set_up_process, show_log, shown_log
from .training.trainer import Trainer, merge_results

logger = logging.getLogger(__name__)


def run(plan: Plan | RunRequest) -> dict:
    """Train or evaluate, in as many processes as requested.

    In processes that torchrun has started, this one joins their group and does its share.

    Args:
        plan: of :func:`.prepare.plan.prepare`, or a request.

    Returns:
        Metrics of the last evaluation, ``{"bbox": {"AP": …}, …}`` (by data set if there are
        several); empty in all of torchrun's processes but the first, and on machines of another
        rank than 0.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: see :func:`.prepare.plan.prepare`.
        RunError: a process that was started here has failed.
    """
    quiet = (plan if isinstance(plan, RunRequest) else plan.request).quiet
    with shown_log(quiet):
        return run_in_processes(_do_share, prepare(plan) if isinstance(plan, RunRequest) else plan)


def _do_share(plan: Plan) -> dict:
    """One process's share of a run: its metrics, in the first process."""
    with only_warnings(plan.request.quiet):
        results = _evaluate(plan) if plan.request.eval_only else _train(plan)
        if comm.is_main_process():
            if plan.request.output_json:
                write_results(results, plan.request.output_json)
            if plan.request.verify:
                verify_results(plan.cfg, results)
        return results


def _train(plan: Plan) -> dict:
    request = plan.request
    show_log(plan.cfg.OUTPUT_DIR, plan.messages)
    cfg = fix_seed(plan.cfg, request)
    set_up_process(cfg, request)
    log_bad_data(cfg.OUTPUT_DIR, request)
    trainer = Trainer(cfg, trust_pickle=request.trust_pickle, origin=plan.origin)
    trainer.resume_or_load(resume=request.resume)
    if request.init_from and trainer.start_iter:
        logger.info(f"--init-from {request.init_from} is not used: the run is resumed")
    trainer.train()
    return trainer.results


def _evaluate(plan: Plan) -> dict:
    cfg, request = plan.cfg, plan.request
    log_cfg = cfg.clone()
    log_cfg.defrost()
    log_cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "inference")  # the run's config.yaml stays
    show_log(log_cfg.OUTPUT_DIR, plan.messages)
    set_up_process(log_cfg, request)
    log_bad_data(cfg.OUTPUT_DIR, request)
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
    """Warn if a checkpoint was trained with another rule for images of more than 8 bits."""
    config = record.get("config") if isinstance(record, dict) else None
    for key, before, now in changed_keys(config, cfg.dump()):
        if key.startswith("RESNEST.INTENSITY."):
            logger.warning(
                f"{key} is {now}, and the weights were trained with {before}: images of more than "
                f"8 bits are read differently than in training. Set {key} to {before}"
            )

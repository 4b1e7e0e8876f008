"""Runs from a LazyConfig: Detectron2's lazy training loop, on any device.

A LazyConfig has calls of classes where a YAML config has keys. The keys that are read are those of
Detectron2's own loop (``model``, ``dataloader``, ``optimizer``, ``lr_multiplier``, ``train``), and
``train.precise_bn``. As for YAML configs, invalid values are refused before anything is started,
and SIGTERM saves and stops. Unlike those of YAML runs, checkpoints do not record their config.
"""

import os

import torch
from fvcore.nn.precise_bn import get_bn_modules
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetMapper
from detectron2.engine import default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm

from ...checkpoint import RunCheckpointer
from ...checkpoint.statistics import InputStatistics
from ...config import get_lazy_config
from ...data import require_registered
from ...data.batches.mapper import ImageMapper
from ...data.intensity import Intensity
from ...evaluation import write_results
from ...evaluation.coco_evaluator import masks_for
from ...inference import optimize_for_inference
from ...model_zoo import resolve_weights
from ..launch.processes import run_in_processes
from ..launch.stopping import StopOnSignal
from ..launch.torchrun import prepare_together
from ..prepare.config_checks import (
    check_batch_size,
    check_output_dir,
    choose_device,
    require_folder,
)
from ..prepare.plan import Plan, keeps_messages
from ..prepare.request import RunRequest
from .records import set_up_process, show_log, shown_log
from .steps import TrainingStep
from .trainer import adapt_sync_batchnorm

_MAPPERS = (
    *(DatasetMapper, "detectron2.data.DatasetMapper"),
    "detectron2.data.dataset_mapper.DatasetMapper",
)


class _LazyPlan(Plan):
    """A plan whose config file may register data sets, in each process that runs it."""

    def register(self) -> None:
        get_lazy_config(self.request.config)


def prepare_lazy(request: RunRequest) -> Plan:
    """Check a request and plan its run.

    Args:
        request: ``config`` as for :func:`resnest_d2.config.get_lazy_config`, ``opts`` as
            ``path.key=value`` in Hydra's grammar.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: with key, value and choices.
    """
    return prepare_together(_prepare, request)


def run_lazy(plan: Plan | RunRequest) -> dict:
    """Train or evaluate as requested; see :func:`resnest_d2.engine.run`."""
    with shown_log():
        if isinstance(plan, RunRequest):
            plan = prepare_lazy(plan)
        return run_in_processes(_do_share, plan)


@keeps_messages
def _prepare(request: RunRequest) -> Plan:
    if request.train or request.val:
        raise ValueError("a LazyConfig names its own data sets: register yours in the config file")
    cfg = get_lazy_config(request.config)
    for override in request.opts:
        _override(cfg, override)
    _read_alike(cfg.dataloader)
    train = cfg.train
    require_folder("train.output_dir", train.output_dir)
    train.device = choose_device(train.device, request, "train.device")
    if train.device == "cpu" and train.amp.enabled:
        raise ValueError("train.amp.enabled is float16 training on a GPU, and train.device is cpu")
    if not (request.resume and RunCheckpointer.has_last(train.output_dir)):
        _check_weights(cfg, request)
    evaluator = cfg.dataloader.get("evaluator")
    parts = [] if request.eval_only else [cfg.dataloader.train]
    names = [part.dataset.names for part in (*parts, *([cfg.dataloader.test] if evaluator else []))]
    require_registered([n for some in names for n in ([some] if isinstance(some, str) else some)])
    if not request.eval_only:
        check_output_dir("train.output_dir", train.output_dir, request)
        check_batch_size("total_batch_size", cfg.dataloader.train.total_batch_size, request)
    elif not evaluator:
        raise ValueError("dataloader.evaluator is missing: there is nothing to evaluate with")
    return _LazyPlan(request, cfg, train.device, ("train.output_dir", train.output_dir))


def _override(cfg: DictConfig, override: str) -> None:
    """Apply ``path.key=value``. A key that nothing would read is refused.

    Detectron2 adds an unknown key silently. Where the node is a call, that is of use: it is one
    more argument of the call.
    """
    key, equals, _ = override.partition("=")
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    known = isinstance(node, ListConfig) or (
        isinstance(node, DictConfig) and (last in node or "_target_" in node)
    )
    if not equals:
        raise ValueError(f"an override of a LazyConfig is path.key=value, got {override!r}")
    if not known:
        there = f"{parent} has {', '.join(node)}" if isinstance(node, DictConfig) else parent
        raise KeyError(f"no key {key} in the LazyConfig to override: {there}")
    try:
        LazyConfig.apply_overrides(cfg, [override])
    except Exception as error:  # Hydra's parser has many kinds
        raise ValueError(f"cannot override with {override}: {error}") from error


def _read_alike(dataloader: DictConfig) -> None:
    """Replace Detectron2's mappers by ours; both read by the training mapper's ``intensity_…``."""
    mappers = [OmegaConf.select(dataloader, f"{part}.mapper") for part in ("train", "test")]
    for mapper in filter(None, mappers):
        if mapper.get("_target_") in _MAPPERS:
            mapper._target_ = ImageMapper
            for key in ("intensity_rule", "intensity_range"):
                if key in (mappers[0] or ()) and key not in mapper:
                    mapper[key] = mappers[0][key]
            Intensity(mapper.get("intensity_rule", "type"), mapper.get("intensity_range", ()))


def _check_weights(cfg: DictConfig, request: RunRequest) -> None:
    weights = cfg.train.init_checkpoint
    frozen = OmegaConf.select(cfg, "model.backbone.bottom_up.freeze_at", default=0)
    if weights:
        try:
            resolve_weights(weights)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"train.init_checkpoint: {error} (in a LazyConfig: train.init_checkpoint='' "
                "model.backbone.bottom_up.freeze_at=0)"
            ) from None
    elif request.eval_only:
        raise ValueError("train.init_checkpoint is '': evaluation needs a checkpoint")
    elif frozen:
        raise ValueError(
            f"train.init_checkpoint is '' and model.backbone.bottom_up.freeze_at is {frozen}: the "
            "first layers would stay random. For training from scratch set it to 0"
        )


def _do_share(plan: Plan) -> dict:
    cfg, request, device = plan.cfg, plan.request, plan.device
    logged = cfg.copy()
    if request.eval_only:  # the run's config.yaml stays
        logged.train.output_dir = os.path.join(cfg.train.output_dir, "inference")
    show_log(logged.train.output_dir, plan.messages)
    set_up_process(logged, request)
    model = adapt_sync_batchnorm(instantiate(cfg.model).to(device), device)
    results = (_evaluate if request.eval_only else _train)(cfg, request, model)
    if request.output_json and comm.is_main_process():
        write_results(results, request.output_json)
    return results


def _train(cfg: DictConfig, request: RunRequest, model: nn.Module) -> dict:
    train, main = cfg.train, comm.is_main_process()
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    device_ids = {"device_ids": None} if train.device == "cpu" else {}
    wrapped = create_ddp_model(model, **train.ddp, **device_ids)
    dtype = torch.float16 if train.amp.enabled else None
    trainer = TrainingStep(wrapped, instantiate(cfg.dataloader.train), optimizer, dtype=dtype)
    checkpointer = RunCheckpointer(
        wrapped, train.output_dir, statistics=_statistics(cfg), trainer=trainer
    )
    results, precise_bn, norms = {}, None, train.get("precise_bn")
    if norms and norms.enabled and get_bn_modules(model):
        loader = instantiate({**cfg.dataloader.train, "num_workers": 0})  # not the training's
        precise_bn = hooks.PreciseBN(train.eval_period, model, loader, norms.num_iter)

    def evaluate() -> dict:
        results.update(_test(cfg, model))
        return results

    stop = StopOnSignal(checkpointer, train.checkpointer.period)
    writers = default_writers(train.output_dir, train.max_iter) if main else []
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            precise_bn,  # before the checkpointer: it changes what is saved
            hooks.PeriodicCheckpointer(checkpointer, **train.checkpointer) if main else None,
            stop,
            hooks.EvalHook(train.eval_period, evaluate),
            hooks.PeriodicWriter(writers, period=train.log_period) if main else None,
        ]
    )
    checkpointer.resume_or_load(train.init_checkpoint, resume=request.resume)
    resumed = request.resume and checkpointer.has_checkpoint()
    try:
        trainer.train(trainer.iter + 1 if resumed else 0, train.max_iter)
    finally:
        trainer.release_data()
        stop.restore()
    return results


def _evaluate(cfg: DictConfig, request: RunRequest, model: nn.Module) -> dict:
    folder = cfg.train.output_dir
    checkpointer = RunCheckpointer(model, folder, whole=True, statistics=_statistics(cfg))
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=request.resume)
    return _test(cfg, optimize_for_inference(model) if request.optimize else model)


def _test(cfg: DictConfig, model: nn.Module) -> dict:
    if not cfg.dataloader.get("evaluator"):
        return {}
    evaluator = instantiate(cfg.dataloader.evaluator)
    with masks_for([evaluator], model):
        results = inference_on_dataset(model, instantiate(cfg.dataloader.test), evaluator)
    if comm.is_main_process():
        print_csv_format(results)
    return results or {}


def _statistics(cfg: DictConfig) -> InputStatistics | None:
    """The model's input format and statistics, if it is defined like Detectron2's models."""
    order, mean, std = (cfg.model.get(key) for key in ("input_format", "pixel_mean", "pixel_std"))
    return None if None in (order, mean, std) else InputStatistics(order, tuple(mean), tuple(std))

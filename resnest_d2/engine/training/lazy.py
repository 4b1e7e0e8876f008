"""Runs from a LazyConfig: Detectron2's lazy training loop, on any device.

A LazyConfig says by calls of classes what a YAML config says by keys. What is read of it is what
Detectron2's own loop reads (``model``, ``dataloader``, ``optimizer``, ``lr_multiplier``,
``train``), and ``train.precise_bn``. As for YAML configs, whatever can be refused is refused first.
Checkpoints hold weights and the state of training; only those of YAML runs say which model they
belong to.
"""

import argparse
import os

from fvcore.nn.precise_bn import get_bn_modules
from omegaconf import DictConfig, ListConfig, OmegaConf

from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetMapper
from detectron2.engine import AMPTrainer, SimpleTrainer, default_setup, default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm

from ...checkpoint import RunCheckpointer
from ...checkpoint.statistics import InputStatistics
from ...config import get_lazy_config
from ...data import require_registered
from ...data.intensity import Intensity
from ...data.mapper import ImageMapper
from ...evaluation import write_results
from ...evaluation.coco_evaluator import masks_for
from ...inference import optimize_for_inference
from ...model_zoo import resolve_weights
from ..diagnosis.run_errors import hide_explained
from ..launch.processes import run_in_processes
from ..launch.torchrun import prepare_together
from ..prepare.config_checks import check_batch_size, check_output_dir, choose_device
from ..prepare.plan import Plan
from ..prepare.request import RunRequest
from .records import show_log
from .trainer import adapt_sync_batchnorm

__all__ = ["prepare_lazy", "run_lazy"]

_MAPPER_NAMES = ("detectron2.data.DatasetMapper", "detectron2.data.dataset_mapper.DatasetMapper")


def prepare_lazy(request: RunRequest) -> Plan:
    """Check a request and plan its run.

    Args:
        request: ``config`` as for :func:`resnest_d2.config.get_lazy_config`, ``opts`` as
            ``path.key=value`` in Hydra's grammar.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, where, and what is
            allowed.
    """
    return prepare_together(_prepare, request)


def _prepare(request: RunRequest) -> Plan:
    if request.train or request.val:
        raise ValueError("a LazyConfig names its own data sets: register yours in the config file")
    cfg = get_lazy_config(request.config)
    _override(cfg, request.opts)
    _read_alike(cfg.dataloader)
    train = cfg.train
    train.device = choose_device(train.device, request, "train.device")
    if train.device == "cpu" and train.amp.enabled:
        raise ValueError("train.amp.enabled is float16 training on a GPU, and train.device is cpu")

    resumes = request.resume and RunCheckpointer.has_last(train.output_dir)
    if not resumes:
        _check_weights(cfg, request)
    require_registered(_data_sets(cfg, request))
    if not request.eval_only:
        check_output_dir("train.output_dir", train.output_dir, request)
        check_batch_size("total_batch_size", cfg.dataloader.train.total_batch_size, request)
    elif not cfg.dataloader.get("evaluator"):
        raise ValueError("dataloader.evaluator is missing: there is nothing to evaluate with")
    return Plan(request, cfg, train.device, ("train.output_dir", train.output_dir))


def run_lazy(plan: Plan | RunRequest) -> dict:
    """Train or evaluate as requested; see :func:`resnest_d2.engine.run`."""
    show_log()
    return run_in_processes(_do_share, prepare_lazy(plan) if isinstance(plan, RunRequest) else plan)


def _do_share(plan: Plan) -> dict:
    cfg, request = plan.cfg, plan.request
    results = _evaluate(cfg, request) if request.eval_only else _train(cfg, request)
    if request.output_json and comm.is_main_process():
        write_results(results, request.output_json)
    return results


def _set_up(cfg: DictConfig, request: RunRequest) -> None:
    show_log(cfg.train.output_dir)
    default_setup(cfg, argparse.Namespace(**{**vars(request), "config_file": ""}))
    hide_explained()


def _build_model(cfg: DictConfig):
    model = instantiate(cfg.model).to(cfg.train.device)
    return adapt_sync_batchnorm(model, cfg.train.device)


def _statistics(cfg: DictConfig) -> InputStatistics | None:
    """How the model's images are given, where it says so as Detectron2's do."""
    said = [cfg.model.get(key) for key in ("input_format", "pixel_mean", "pixel_std")]
    if None in said:
        return None
    order, mean, std = said
    return InputStatistics(order, tuple(mean), tuple(std))


def _train(cfg: DictConfig, request: RunRequest) -> dict:
    _set_up(cfg, request)
    train = cfg.train
    model = _build_model(cfg)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    data_loader = instantiate(cfg.dataloader.train)
    device_ids = {"device_ids": None} if train.device == "cpu" else {}
    wrapped = create_ddp_model(model, **train.ddp, **device_ids)
    trainer = (AMPTrainer if train.amp.enabled else SimpleTrainer)(wrapped, data_loader, optimizer)
    checkpointer = RunCheckpointer(
        wrapped, train.output_dir, statistics=_statistics(cfg), trainer=trainer
    )
    results = {}

    def evaluate() -> dict:
        results.update(_test(cfg, model))
        return results

    main = comm.is_main_process()
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            _precise_bn(cfg, model),  # before the checkpointer: it changes what is saved
            hooks.PeriodicCheckpointer(checkpointer, **train.checkpointer) if main else None,
            hooks.EvalHook(train.eval_period, evaluate),
            hooks.PeriodicWriter(
                default_writers(train.output_dir, train.max_iter), period=train.log_period
            )
            if main
            else None,
        ]
    )
    checkpointer.resume_or_load(train.init_checkpoint, resume=request.resume)
    resumed = request.resume and checkpointer.has_checkpoint()
    trainer.train(trainer.iter + 1 if resumed else 0, train.max_iter)
    return results


def _precise_bn(cfg: DictConfig, model) -> hooks.PreciseBN | None:
    precise_bn = cfg.train.get("precise_bn")
    if not (precise_bn and precise_bn.enabled and get_bn_modules(model)):
        return None
    data_loader = instantiate({**cfg.dataloader.train, "num_workers": 0})  # training has its own
    return hooks.PreciseBN(cfg.train.eval_period, model, data_loader, precise_bn.num_iter)


def _evaluate(cfg: DictConfig, request: RunRequest) -> dict:
    log_cfg = cfg.copy()
    log_cfg.train.output_dir = os.path.join(cfg.train.output_dir, "inference")  # as for YAML runs
    _set_up(log_cfg, request)
    model = _build_model(cfg)
    checkpointer = RunCheckpointer(
        model, cfg.train.output_dir, whole=True, statistics=_statistics(cfg)
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=request.resume)
    if request.optimize:
        model = optimize_for_inference(model)
    return _test(cfg, model)


def _test(cfg: DictConfig, model) -> dict:
    if not cfg.dataloader.get("evaluator"):
        return {}
    evaluator = instantiate(cfg.dataloader.evaluator)
    with masks_for([evaluator], model):
        results = inference_on_dataset(model, instantiate(cfg.dataloader.test), evaluator)
    if comm.is_main_process():
        print_csv_format(results)
    return results or {}


def _override(cfg: DictConfig, overrides: tuple[str, ...]) -> None:
    """Apply ``path.key=value``. A key that nothing would read is refused.

    Detectron2 adds an unknown key silently. That is of use where the node is a call, whose
    further arguments the config leaves at their defaults.
    """
    for override in overrides:
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
    """Let Detectron2's mappers read as ours, both by the training mapper's ``intensity_…``."""
    mappers = [OmegaConf.select(dataloader, f"{part}.mapper") for part in ("train", "test")]
    for mapper in filter(None, mappers):
        if mapper.get("_target_") in (DatasetMapper, *_MAPPER_NAMES):
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


def _data_sets(cfg: DictConfig, request: RunRequest) -> list[str]:
    parts = [] if request.eval_only else [cfg.dataloader.train]
    if cfg.dataloader.get("evaluator"):
        parts.append(cfg.dataloader.test)
    names = [part.dataset.names for part in parts]
    return [name for some in names for name in ([some] if isinstance(some, str) else some)]

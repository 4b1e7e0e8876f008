"""Detectron2's ``DefaultTrainer``, on any device.

What is added: the CPU as a device of its own (DDP over gloo, synchronised batch norm, bfloat16
steps), AdamW, channels_last, fixed batch-norm statistics, COCO evaluation, and checkpoints that
carry their config and class names.
"""

import logging
import time
import weakref

import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm

from ..checkpoint import RunCheckpointer, make_record
from ..evaluation import build_coco_evaluator
from ..modeling.norm import PortableSyncBatchNorm, convert_sync_batchnorm
from .hooks import FreezeNorm

__all__ = ["AutocastTrainer", "Trainer"]

logger = logging.getLogger(__name__)


class AutocastTrainer(SimpleTrainer):
    """A training step whose forward runs under autocast in bfloat16, on CPU or GPU.

    Weights, gradients and the optimiser stay in float32. bfloat16 has float32's range, so no loss
    is scaled. (Detectron2's ``AMPTrainer`` is for float16 on CUDA.)
    """

    def run_step(self):
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, dtype=torch.bfloat16):
            losses = self.model(data)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.after_backward()
        self._write_metrics(losses, data_time)
        self.optimizer.step()


class Trainer(DefaultTrainer):
    """``DefaultTrainer`` for this package's configs; see the module and ``add_resnest_config``.

    Args:
        trust_pickle: as for :class:`resnest_d2.checkpoint.RunCheckpointer`.
    """

    def __init__(self, cfg: CfgNode, *, trust_pickle: bool = False):
        # DefaultTrainer's own constructor gives DDP a GPU id and has no bfloat16 step: the same
        # objects are built here, in the same order.
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)

        on_cpu = cfg.MODEL.DEVICE == "cpu"
        model = create_ddp_model(
            model, broadcast_buffers=False, **({"device_ids": None} if on_cpu else {})
        )
        if cfg.SOLVER.AMP.ENABLED:
            step_class = AMPTrainer
        else:
            step_class = AutocastTrainer if cfg.RESNEST.AMP_DTYPE else SimpleTrainer
        self._trainer = step_class(model, data_loader, optimizer)

        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = RunCheckpointer.from_config(
            cfg,
            model,
            cfg.OUTPUT_DIR,
            record=make_record(cfg, MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes),
            trust_pickle=trust_pickle,
            trainer=weakref.proxy(self),
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @property
    def results(self) -> dict:
        """Metrics of the last evaluation, empty before the first one and in other processes."""
        return getattr(self, "_last_eval_results", None) or {}

    def build_hooks(self):
        added = []
        frozen_from = self.cfg.RESNEST.FREEZE_NORM.ITER
        if frozen_from > 0:
            added.append(
                FreezeNorm(
                    frozen_from,
                    self.model,
                    self.build_train_loader(self.cfg),
                    self.cfg.RESNEST.FREEZE_NORM.NUM_BATCHES,
                )
            )
        return added + super().build_hooks()

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = super().build_model(cfg)
        single = comm.get_world_size() == 1
        if single or cfg.MODEL.DEVICE == "cpu":
            model = convert_sync_batchnorm(model)
        count = sum(isinstance(module, PortableSyncBatchNorm) for module in model.modules())
        if count and single:
            logger.info(f"SyncBN in one process: {count} layers train as BN")
        elif count:
            logger.info(f"SyncBN on the CPU: {count} layers gather their statistics over gloo")
        if cfg.RESNEST.CHANNELS_LAST:
            model = model.to(memory_format=torch.channels_last)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        if cfg.RESNEST.OPTIMIZER == "SGD":
            return super().build_optimizer(cfg, model)
        parameters = get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        optimizer_class = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        return optimizer_class(
            parameters, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str):
        return build_coco_evaluator(cfg, dataset_name)

"""Detectron2's ``DefaultTrainer``, on any device.

What is added: the CPU as a device of its own (DDP over gloo, synchronised batch norm, bfloat16
steps), accumulated gradients, AdamW, channels_last, fixed batch-norm statistics, large-scale
jitter, evaluation of every task, and checkpoints that carry their config and class names.
"""

import logging
import os
import weakref

import torch
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_train_loader
from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter
from detectron2.utils.file_io import PathManager

from ..checkpoint import RunCheckpointer, make_record
from ..data import build_train_mapper
from ..evaluation import build_evaluator
from ..modeling.norm import PortableSyncBatchNorm, convert_sync_batchnorm
from .hooks import FreezeNorm, StopTraining
from .records import LateWriter, cut_metrics
from .seeds import Generators
from .steps import TrainingStep, choose_dtype
from .stopping import StopOnSignal

__all__ = ["Trainer", "adapt_sync_batchnorm"]

logger = logging.getLogger(__name__)


def adapt_sync_batchnorm(model: nn.Module, device: str) -> nn.Module:
    """Make a model's SyncBN layers train on this device, in these processes, and log how."""
    single = comm.get_world_size() == 1
    if single or device == "cpu":
        model = convert_sync_batchnorm(model)
    count = sum(isinstance(module, PortableSyncBatchNorm) for module in model.modules())
    if count and single:
        logger.info(f"SyncBN in one process: {count} layers train as BN")
    elif count:
        logger.info(f"SyncBN on the CPU: {count} layers gather their statistics over gloo")
    return model


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
        self._trainer = TrainingStep(
            model,
            data_loader,
            optimizer,
            micro_batches=cfg.RESNEST.ACCUMULATE,
            dtype=choose_dtype(cfg),
        )

        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = RunCheckpointer.from_config(
            cfg,
            model,
            cfg.OUTPUT_DIR,
            record=make_record(cfg, MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes),
            keep=cfg.RESNEST.KEEP_CHECKPOINTS,
            trust_pickle=trust_pickle,
            trainer=weakref.proxy(self),
            generators=Generators(),
        )
        self._stop_on_signal = StopOnSignal(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @property
    def results(self) -> dict:
        """Metrics of the last evaluation, empty before the first one and in other processes."""
        return getattr(self, "_last_eval_results", None) or {}

    def train(self):
        try:
            return super().train()
        except StopTraining as stop:
            logger.info(f"Training ends at iteration {self.iter}: {stop}")
        finally:
            self._stop_on_signal.restore()

    def resume_or_load(self, resume=True):
        super().resume_or_load(resume=resume)
        if self.start_iter:
            left = max(0, self.max_iter - self.start_iter)
            logger.info(f"Resuming at iteration {self.start_iter}: {left} iterations left to train")
        if comm.is_main_process():
            self.checkpointer.remove_temporaries()
            cut_metrics(self._metrics_file, self.start_iter)

    def before_train(self):
        super().before_train()
        if self.start_iter:
            self._finish_iteration()

    def _finish_iteration(self) -> None:
        """Make up for what came after the checkpoint in its iteration, such as an evaluation."""
        self.iter = self.storage.iter = self.start_iter - 1
        for hook in self._hooks[self._hooks.index(self._stop_on_signal) + 1 :]:
            hook.after_step()
        self.iter = self.storage.iter = self.start_iter

    def after_train(self):
        self.iter = min(self.iter, self.max_iter)  # one more where nothing was left to train
        super().after_train()

    def build_hooks(self):
        """Detectron2's hooks and ours. Each sees what those above it have done in the iteration."""
        cfg = self.cfg
        added = [
            hooks.IterationTimer(),
            self._freeze_norm(),
            hooks.LRScheduler(),
            self._precise_bn(),  # before the checkpointer: it changes what is saved
        ]
        if comm.is_main_process():
            added.append(
                hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
            )
        # What stands below is done again when a run is resumed from the iteration's checkpoint.
        added.append(self._stop_on_signal)
        added.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate))
        if comm.is_main_process():  # after the evaluation: it writes the metrics
            added.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return added

    @property
    def _metrics_file(self) -> str:
        return os.path.join(self.cfg.OUTPUT_DIR, "metrics.json")

    def build_writers(self):
        """Detectron2's; a resumed run's continue from its checkpoint, and none ends a run."""
        folder = self.cfg.OUTPUT_DIR
        PathManager.mkdirs(folder)
        return [
            CommonMetricPrinter(self.max_iter),
            LateWriter(lambda: JSONWriter(self._metrics_file), folder, "metrics.json"),
            LateWriter(
                lambda: TensorboardXWriter(folder, purge_step=self.start_iter or None),
                folder,
                "TensorBoard's events",
            ),
        ]

    def _freeze_norm(self) -> FreezeNorm | None:
        freeze = self.cfg.RESNEST.FREEZE_NORM
        if freeze.ITER <= 0:
            return None
        return FreezeNorm(freeze.ITER, self.model, self._extra_loader(), freeze.NUM_BATCHES)

    def _precise_bn(self) -> hooks.PreciseBN | None:
        precise = self.cfg.TEST.PRECISE_BN
        if not precise.ENABLED or not get_bn_modules(self.model):
            return None
        period = self.cfg.TEST.EVAL_PERIOD  # whenever it evaluates, before that
        return hooks.PreciseBN(period, self.model, self._extra_loader(), precise.NUM_ITER)

    def _extra_loader(self):
        """Training batches for statistics, read beside training and in its process."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        return self.build_train_loader(cfg)

    def _evaluate(self) -> dict:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = super().build_model(cfg)
        model = adapt_sync_batchnorm(model, cfg.MODEL.DEVICE)
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
    def build_train_loader(cls, cfg: CfgNode):
        return build_detection_train_loader(cfg, mapper=build_train_mapper(cfg))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str):
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        if cfg.MODEL.KEYPOINT_ON:
            # Detectron2's mapper asks the training set for its keypoints even to evaluate, and
            # an evaluation need not have one.
            cfg = cfg.clone()
            cfg.defrost()
            cfg.DATASETS.TRAIN = (dataset_name,)
        return super().build_test_loader(cfg, dataset_name)

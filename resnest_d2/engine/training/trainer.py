"""Detectron2's ``DefaultTrainer``, on any device.

Added are training on the CPU (DDP over gloo, synchronised batch norm, bfloat16 steps), accumulated
gradients, checkpointed activations, averaged weights, freezing by name, AdamW, channels_last, fixed
batch-norm statistics, large-scale jitter, evaluation of every task, the best checkpoint, and
checkpoints that record their config and class names.
"""

import logging
import os
import sys
import weakref

import torch
from fvcore.nn.precise_bn import get_bn_modules
from torch import distributed as dist
from torch import nn

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter
from detectron2.utils.file_io import PathManager

from ...checkpoint import RunCheckpointer, make_record
from ...data import (
    TrainLoader,
    build_test_loader,
    build_train_loader,
    build_train_mapper,
    explained_worker_errors,
)
from ...evaluation import build_evaluator
from ...evaluation.coco_evaluator import masks_for
from ...model_zoo.trained import class_names_of, known_category_ids
from ...modeling.box_masks import AugmentedRCNN
from ...modeling.checkpointing import add_checkpointing
from ...modeling.norm import PortableSyncBatchNorm, convert_sync_batchnorm
from ...modeling.windows import WindowedSegmentor
from ..diagnosis.non_finite import LossGuard
from ..diagnosis.start_report import log_report
from ..launch.stopping import StopOnSignal
from ..prepare.schedule import Origin
from ..prepare.seeds import Generators
from .best import BestCheckpoint
from .ema import RAW_MODEL, AverageWeights, TrainedWeights, average_of
from .freeze import freeze_parameters
from .hooks import FreezeNorm, MetricsWriter, RepeatablePreciseBN, SeedIterations, StopTraining
from .optimizer import build_optimizer
from .records import LateWriter, cut_metrics
from .steps import TrainingStep, choose_dtype

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


def merge_results(first: dict, second: dict) -> dict:
    """Metrics of two evaluations with different tasks, by data set where there are several."""
    return {**first, **{name: {**first.get(name, {}), **second[name]} for name in second}}


class Trainer(DefaultTrainer):
    """``DefaultTrainer`` for this package's configs; see the module and ``add_resnest_config``.

    Args:
        trust_pickle: as for :class:`resnest_d2.checkpoint.RunCheckpointer`.
        origin: of the schedule, for the start-up report.

    Attributes:
        averaged: PyTorch's ``AveragedModel``, which is evaluated and saved; None where
            ``MODEL_EMA.ENABLED`` is False.
    """

    build_optimizer = staticmethod(build_optimizer)
    build_evaluator = staticmethod(build_evaluator)

    def __init__(self, cfg: CfgNode, *, trust_pickle: bool = False, origin: Origin | None = None):
        # DefaultTrainer's constructor gives DDP a GPU's id and has no bfloat16 step: the same
        # objects are built here, in the same order.
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        add_checkpointing(model, cfg)
        freeze_parameters(model, cfg.RESNEST.FREEZE)
        if cfg.RESNEST.COMPILE_BACKBONE:
            model.backbone.compile()
        self._trained = TrainedWeights(model)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        class_names = class_names_of(cfg.DATASETS.TRAIN[0], cfg)
        category_ids = known_category_ids(cfg.DATASETS.TRAIN, class_names)
        record = make_record(cfg, class_names, category_ids)
        guard = self._loss_guard(cfg, model, record)

        on_cpu = cfg.MODEL.DEVICE == "cpu"
        model = create_ddp_model(
            model, broadcast_buffers=False, **({"device_ids": None} if on_cpu else {})
        )
        # After the wrapper has made the weights equal in all processes.
        ema = cfg.MODEL_EMA
        self.averaged = average_of(self._trained.model, ema.DECAY) if ema.ENABLED else None
        self._trainer = TrainingStep(
            model,
            data_loader,
            optimizer,
            micro_batches=cfg.RESNEST.ACCUMULATE,
            dtype=guard.dtype,
            check_losses=guard,
        )

        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = RunCheckpointer.from_config(
            cfg,
            self.averaged.module if self.averaged else model,
            cfg.OUTPUT_DIR,
            record=record,
            keep=cfg.RESNEST.KEEP_CHECKPOINTS,
            trust_pickle=trust_pickle,
            trainer=weakref.proxy(self),
            generators=Generators(),
            **({RAW_MODEL: self._trained} if self.averaged else {}),
        )
        self._stop_on_signal = StopOnSignal(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self._origin = origin or Origin()
        self.register_hooks(self.build_hooks())

    @property
    def results(self) -> dict:
        """Metrics of the last evaluation, empty before the first one and in other processes."""
        return getattr(self, "_last_eval_results", None) or {}

    def train(self):
        loader = self._trainer.data_loader
        if isinstance(loader, TrainLoader):
            loader.seek(self.start_iter * self.cfg.RESNEST.ACCUMULATE)
        elif self.start_iter:
            logger.warning(
                f"{type(loader).__name__} cannot be resumed: its data starts from the beginning"
            )
        self._handled_outside = sys.exc_info()[1]  # if this is called in an except clause
        log_report(
            self.cfg,
            self.model,
            origin=self._origin,
            start=self.start_iter,
            dtype=self._trainer.dtype,
            loaded=self.checkpointer.loaded,
        )
        try:
            with explained_worker_errors():
                return super().train()
        except StopTraining as stop:
            logger.info(f"Training ends at iteration {self.iter}: {stop}")
            if self.cfg.TEST.AUG.ENABLED:
                self._evaluate_augmented()
        finally:
            self._trainer.release_data()
            self._stop_on_signal.restore()

    def resume_or_load(self, resume=True):
        """As Detectron2's, for the trained weights and for their average.

        Where a file has only one of the two, the other starts equal to it.
        """
        resumes = resume and self.checkpointer.has_checkpoint()
        rest = self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resumes:
            self.start_iter = self.iter + 1
            left = max(0, self.max_iter - self.start_iter)
            logger.info(f"Resuming at iteration {self.start_iter}: {left} iterations left to train")
        if self.averaged and not self._trained.loaded:
            self._trained.load_state_dict(self.averaged.module.state_dict())
        elif resumes and RAW_MODEL in rest:  # the resumed run averaged its weights, this one not
            self._trained.load_state_dict(rest[RAW_MODEL])
        if comm.is_main_process():
            self.checkpointer.remove_temporaries()
            cut_metrics(self._metrics_file, self.start_iter)

    def before_train(self):
        super().before_train()
        if self.start_iter:
            self._finish_iteration()

    def _finish_iteration(self) -> None:
        """Do what follows the checkpoint in its iteration, such as an evaluation."""
        self.iter = self.storage.iter = self.start_iter - 1
        if self.start_iter >= self.max_iter and comm.is_main_process():
            file, _ = self.checkpointer.loaded
            if os.path.basename(file) != "model_final.pth":  # the run ended before writing it
                self.checkpointer.save("model_final", iteration=self.iter)
        for hook in self._hooks[self._hooks.index(self._stop_on_signal) + 1 :]:
            hook.after_step()
        self.iter = self.storage.iter = self.start_iter

    def after_train(self):
        self.iter = min(self.iter, self.max_iter)  # one more if nothing was left to train
        failure = sys.exc_info()[1]
        if failure is self._handled_outside or isinstance(failure, StopTraining):
            super().after_train()
            return
        for hook in self._hooks:
            if not isinstance(hook, hooks.EvalHook):
                # After a failure in the last iteration it would evaluate, and wait for the
                # processes that have failed.
                hook.after_train()

    def _loss_guard(self, cfg: CfgNode, model: nn.Module, record: dict) -> LossGuard:
        hints = f"then lower SOLVER.BASE_LR ({cfg.SOLVER.BASE_LR:g})"
        if not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
            hints += ", clip gradients (SOLVER.CLIP_GRADIENTS.ENABLED True)"
        dtype = choose_dtype(cfg)
        if dtype is not None:
            hints += ", or train in float32 (RESNEST.AMP_DTYPE '', SOLVER.AMP.ENABLED False)"
        trainer = weakref.proxy(self)
        return LossGuard(
            model,
            record=record,
            folder=cfg.OUTPUT_DIR,
            iteration=lambda: trainer.iter,
            micro_batches=cfg.RESNEST.ACCUMULATE,
            dtype=dtype,
            hints=hints,
        )

    def build_hooks(self):
        """Detectron2's hooks and ours. Each sees what those above it have done in the iteration."""
        cfg, model, main = self.cfg, self._evaluated_model, comm.is_main_process()
        period, best = cfg.TEST.EVAL_PERIOD, cfg.RESNEST.BEST
        freeze, precise = cfg.RESNEST.FREEZE_NORM, cfg.TEST.PRECISE_BN
        freeze_norm = average = precise_bn = checkpoints = keep_best = augmented = writer = None
        if freeze.ITER > 0:
            batches = self._extra_loader()
            freeze_norm = FreezeNorm(freeze.ITER, self.model, batches, freeze.NUM_BATCHES)
        if self.averaged:
            average = AverageWeights(self.averaged, self._trained.model)
        if precise.ENABLED and get_bn_modules(model):
            precise_bn = RepeatablePreciseBN(period, model, self._extra_loader(), precise.NUM_ITER)
        if best.METRIC:
            keep_best = BestCheckpoint(
                period, self.checkpointer, best.METRIC, mode=best.MODE, patience=best.PATIENCE
            )
        if cfg.TEST.AUG.ENABLED:
            augmented = hooks.EvalHook(0, self._evaluate_augmented)  # after training only
        if main:
            checkpoints = hooks.PeriodicCheckpointer(
                self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD
            )
            writer = MetricsWriter(self.build_writers(), eval_period=period)
        return [
            SeedIterations(_seed(cfg)),
            hooks.IterationTimer(),
            freeze_norm,
            hooks.LRScheduler(),
            average,
            precise_bn,  # before the checkpointer: it changes what is saved
            checkpoints,
            self._stop_on_signal,
            # A run that is resumed from the iteration's checkpoint repeats the following hooks.
            hooks.EvalHook(period, self._evaluate),
            keep_best,
            augmented,
            writer,  # after the evaluation: it writes the metrics
        ]

    @property
    def _metrics_file(self) -> str:
        return os.path.join(self.cfg.OUTPUT_DIR, "metrics.json")

    def build_writers(self):
        """Detectron2's; in a resumed run they go on from its checkpoint, and no failure ends it."""
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

    def _extra_loader(self):
        """A second loader of the first training batches, for statistics of batch norms."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        return self.build_train_loader(cfg)

    def _evaluate(self) -> dict:
        if comm.get_world_size() > 1:
            # A plain batch norm has the statistics of its own process. Those of the first process
            # are saved, so all processes evaluate with them.
            for buffer in self._evaluated_model.buffers():
                dist.broadcast(buffer, src=0)
        self._last_eval_results = self.test(self.cfg, self._evaluated_model)
        return self._last_eval_results

    def _evaluate_augmented(self) -> dict:
        augmented = self.test_augmented(self.cfg, self._evaluated_model)
        self._last_eval_results = merge_results(self.results, augmented)
        return augmented

    @property
    def _evaluated_model(self) -> nn.Module:
        return self.averaged.module if self.averaged else self.model

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> dict:
        """Detectron2's. Our COCO evaluator gets masks that are not pasted into their images."""
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        elif isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        with masks_for(evaluators, model):
            return super().test(cfg, WindowedSegmentor.from_config(cfg, model), evaluators)

    @classmethod
    def test_augmented(cls, cfg: CfgNode, model: nn.Module) -> dict:
        """As ``test``, with test-time augmentation (``TEST.AUG``), and tasks named ``bbox_TTA`` ….

        The evaluators write into ``OUTPUT_DIR/TTA``.
        """
        logger.info("Evaluating with test-time augmentation")
        augmented = cfg.clone()
        augmented.defrost()
        augmented.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "TTA")
        results = cls.test(augmented, AugmentedRCNN(cfg, model))

        def renamed(tasks: dict) -> dict:
            return {f"{task}_TTA": metrics for task, metrics in tasks.items()}

        if len(cfg.DATASETS.TEST) == 1:
            return renamed(results)
        return {name: renamed(tasks) for name, tasks in results.items()}

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = super().build_model(cfg)
        model = adapt_sync_batchnorm(model, cfg.MODEL.DEVICE)
        if cfg.RESNEST.CHANNELS_LAST:
            model = model.to(memory_format=torch.channels_last)
        return model

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer):
        """Detectron2's, also for a rate of 0 and a step at the end of training, and
        ``WarmupPolyLR`` of its DeepLab project.
        """
        if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupPolyLR":
            from .poly import build_poly_scheduler  # registers heads

            return build_poly_scheduler(cfg, optimizer)
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.BASE_LR = cfg.SOLVER.BASE_LR or 1.0  # it builds factors of the rate: 0 stays 0
        cfg.SOLVER.STEPS = tuple(step for step in cfg.SOLVER.STEPS if step != cfg.SOLVER.MAX_ITER)
        return super().build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_train_loader(cfg, mapper=build_train_mapper(cfg), seed=_seed(cfg))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        if cfg.MODEL.KEYPOINT_ON:
            # Detectron2's mapper reads the training set's keypoints even for an evaluation, which
            # may have no training set.
            cfg = cfg.clone()
            cfg.defrost()
            cfg.DATASETS.TRAIN = (dataset_name,)
        return build_test_loader(cfg, dataset_name)


def _seed(cfg: CfgNode) -> int:
    return max(cfg.SEED, 0)

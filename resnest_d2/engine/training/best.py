"""The best checkpoint, and early stopping (``RESNEST.BEST``)."""

import logging
import math
import re
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from ...errors import check_choice
from ...evaluation import SEMANTIC_ARCHITECTURES
from .hooks import StopTraining

logger = logging.getLogger(__name__)

_BOXES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_BOX_RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_KEYPOINT_RECALLS = ("AR", "AR50", "AR75", "ARm", "ARl")
_ONE_CLASS = re.compile("/(AP|IoU|ACC)-")
_QUALITIES = tuple(name + part for part in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ"))


class BestCheckpoint(hooks.BestCheckpointer):
    """Keeps ``model_best.pth``, and ends the training after evaluations without a better value.

    Unlike Detectron2's hook it keeps its state when a run is resumed, stops all processes, and
    refuses an unknown metric. Register it in all processes, after the hook that evaluates.

    Args:
        period: iterations between evaluations, as for ``EvalHook``.
        checkpointer: writes ``model_best`` and, if the training ends early, ``model_final``.
        metric: e.g. ``"segm/AP"``.
        mode: ``"max"`` or ``"min"``.
        patience: evaluations in a row without a better value that end the training; 0: never.
    """

    def __init__(
        self, period: int, checkpointer, metric: str, *, mode: str = "max", patience: int = 0
    ):
        super().__init__(period, checkpointer, metric, mode=mode)
        self._patience = patience
        self._evaluated = 0  # iterations that were done at the last evaluation
        self._waited = 0  # evaluations since the best one

    def state_dict(self) -> dict:
        return {
            "best_metric": self.best_metric,
            "best_iter": self.best_iter,
            "evaluated": self._evaluated,
            "waited": self._waited,
        }

    def load_state_dict(self, state: dict) -> None:
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]
        self._evaluated, self._waited = state["evaluated"], state["waited"]

    def _best_checking(self):
        if self._evaluated == self.trainer.storage.iter + 1:
            return  # it was compared before the run was resumed
        problem = ""
        if comm.is_main_process():
            value, iteration = self.trainer.storage.latest().get(self._val_metric, (None, None))
            if value is None or iteration != self.trainer.storage.iter:
                available = ", ".join(sorted(flatten_results_dict(self.trainer.results)))
                problem = (
                    f"RESNEST.BEST.METRIC must be a metric of the evaluation, got "
                    f"{self._val_metric!r}. It gave {available}"
                )
            else:
                best = self.best_iter
                if math.isfinite(value):
                    super()._best_checking()
                else:
                    logger.warning(f"{self._val_metric} is {value}, which is no better value")
                self._waited = 0 if self.best_iter != best else self._waited + 1
        problem, self._waited = comm.all_gather((problem, self._waited))[0]
        if problem:
            raise ValueError(problem)
        self._evaluated = self.trainer.storage.iter + 1

    def after_step(self):
        super().after_step()
        compared = self._evaluated == self.trainer.iter + 1
        if compared and 0 < self._patience <= self._waited:
            self._checkpointer.save("model_final", iteration=self.trainer.iter)
            comm.synchronize()  # the file is complete before a process ends
            raise StopTraining(
                f"the last {self._waited} evaluations brought no better {self._val_metric} "
                "(RESNEST.BEST.PATIENCE). model_final.pth has the last weights"
            )

    def after_train(self):
        super().after_train()
        if comm.is_main_process() and self.best_metric is not None:
            logger.info(
                f"Best {self._val_metric}: {self.best_metric:.3f} at iteration {self.best_iter}, "
                f"in {self._checkpointer.save_dir}/{self._file_prefix}.pth"
            )


def check_best(cfg: CfgNode) -> None:
    """Raise a ValueError where ``RESNEST.BEST`` names what no evaluation of the run measures."""
    best = cfg.RESNEST.BEST
    check_choice("RESNEST.BEST.MODE", best.MODE, ("max", "min"))
    if not best.METRIC:
        if best.PATIENCE:
            raise ValueError(
                f"RESNEST.BEST.PATIENCE {best.PATIENCE} needs a RESNEST.BEST.METRIC to wait for, "
                'e.g. "bbox/AP"'
            )
        return
    if not cfg.DATASETS.TEST:
        raise ValueError(
            f"RESNEST.BEST.METRIC {best.METRIC!r} needs data to evaluate on, and DATASETS.TEST is "
            "empty: name a data set, or give --val-json FILE"
        )
    if cfg.TEST.EVAL_PERIOD <= 0 and cfg.RESNEST.EPOCHS.EVAL_PERIOD <= 0:
        raise ValueError(
            f"RESNEST.BEST.METRIC {best.METRIC!r} needs evaluations during training: set "
            "TEST.EVAL_PERIOD to the iterations between them"
        )
    metrics = _metrics(cfg)
    if best.METRIC not in metrics:
        whole = [name for name in metrics if not _ONE_CLASS.search(name)]
        raise ValueError(
            f"RESNEST.BEST.METRIC must be one of {', '.join(whole)}, or that of one class such as "
            f'"bbox/AP-NAME", got {best.METRIC!r}'
        )


def _metrics(cfg: CfgNode) -> list[str]:
    """Names of the metrics of the evaluations during a training."""
    architecture = cfg.MODEL.META_ARCHITECTURE
    several = len(cfg.DATASETS.TEST) > 1
    found = []
    for data_set in cfg.DATASETS.TEST:
        metadata = MetadataCatalog.get(data_set)
        tasks: dict[str, Sequence[str]] = {}
        if architecture == "ImageClassifier":
            names = metadata.get("thing_classes") or []
            whole = ("top1", "top5", "class_mean")
            tasks["classification"] = [*whole, *(f"top1-{name}" for name in names)]
        elif architecture != "SemanticSegmentor":
            things = metadata.get("thing_classes") or []
            tasks["bbox"] = [*_BOXES, *_BOX_RECALLS, *(f"AP-{name}" for name in things)]
            if cfg.MODEL.MASK_ON:
                tasks["segm"] = tasks["bbox"]
            if cfg.MODEL.KEYPOINT_ON:
                tasks["keypoints"] = [*(ap for ap in _BOXES if ap != "APs"), *_KEYPOINT_RECALLS]
        if architecture in SEMANTIC_ARCHITECTURES:
            classes = metadata.get("stuff_classes") or []
            by_class = [f"{kind}-{name}" for name in classes for kind in ("IoU", "ACC")]
            tasks["sem_seg"] = ["mIoU", "fwIoU", "mACC", "pACC", *by_class]
        if architecture == "PanopticFPN":
            tasks["panoptic_seg"] = _QUALITIES
        prefix = f"{data_set}/" if several else ""
        found += [f"{prefix}{task}/{name}" for task, names in tasks.items() for name in names]
    return found

"""Training and evaluation runs on Detectron2's engine."""

from .lazy import prepare_lazy, run_lazy
from .setup import RunRequest, prepare, run
from .trainer import Trainer

__all__ = ["RunRequest", "Trainer", "prepare", "prepare_lazy", "run", "run_lazy"]

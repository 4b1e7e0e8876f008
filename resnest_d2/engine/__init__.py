"""Training and evaluation runs on Detectron2's engine."""

from .lazy import prepare_lazy, run_lazy
from .request import RunRequest
from .setup import prepare, run
from .trainer import Trainer

__all__ = ["RunRequest", "Trainer", "prepare", "prepare_lazy", "run", "run_lazy"]

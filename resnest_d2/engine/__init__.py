"""Training and evaluation runs on Detectron2's engine."""

from .setup import RunRequest, prepare, run
from .trainer import Trainer

__all__ = ["RunRequest", "Trainer", "prepare", "run"]

"""Training and evaluation runs on Detectron2's engine."""

from .errors import RunError, explain
from .failures import NonFiniteLossError
from .lazy import prepare_lazy, run_lazy
from .request import RunRequest
from .setup import prepare, run
from .trainer import Trainer

__all__ = [
    "NonFiniteLossError",
    "RunError",
    "RunRequest",
    "Trainer",
    "explain",
    "prepare",
    "prepare_lazy",
    "run",
    "run_lazy",
]

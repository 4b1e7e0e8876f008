"""Training and evaluation runs on Detectron2's engine."""

from .diagnosis.non_finite import NonFiniteLossError
from .diagnosis.run_errors import RunError, explain
from .prepare.plan import prepare, run
from .prepare.request import RunRequest
from .training.lazy import prepare_lazy, run_lazy
from .training.trainer import Trainer

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

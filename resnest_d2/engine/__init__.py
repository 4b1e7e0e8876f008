"""Training and evaluation runs on Detectron2's engine.

``prepare`` makes a plan of a request, ``launch`` starts the processes that follow it, ``training``
has the loop, ``diagnosis`` the reports. ``work.run`` puts them together. Networks, data and metrics
belong to their own packages. The function :func:`prepare` has the same name as its package.
"""

from .diagnosis.non_finite import NonFiniteLossError
from .diagnosis.run_errors import RunError, explain
from .prepare.plan import Plan, prepare
from .prepare.request import RunRequest
from .training.lazy import prepare_lazy, run_lazy
from .training.trainer import Trainer
from .work import run

__all__ = [
    "NonFiniteLossError",
    "Plan",
    "RunError",
    "RunRequest",
    "Trainer",
    "explain",
    "prepare",
    "prepare_lazy",
    "run",
    "run_lazy",
]

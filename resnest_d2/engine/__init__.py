"""Training and evaluation runs on Detectron2's engine.

``prepare`` makes a plan of a request, ``launch`` has the processes that follow it, ``training`` the
loop, ``diagnosis`` what a run says about itself. ``work.run`` puts them together. The function
:func:`prepare` has the name of its room.
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

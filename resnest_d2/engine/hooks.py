"""Training hooks that Detectron2 does not have."""

import logging

from fvcore.nn.precise_bn import get_bn_modules
from torch import distributed as dist
from torch import nn

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

__all__ = ["EstimateTime", "FreezeNorm", "StopTraining"]

logger = logging.getLogger(__name__)


class StopTraining(BaseException):
    """Raised by a hook to end the training early, with the reason. It is no failure.

    No ``Exception``: Detectron2's loop would log it as one.
    """


class EstimateTime(HookBase):
    """Says once, after ``steps`` steps, how long the training will take.

    It comes after ``IterationTimer``, which leaves out the first steps, the slow ones.
    """

    def __init__(self, steps: int = 20):
        self._steps = steps

    def after_step(self):
        trainer = self.trainer
        left = trainer.max_iter - trainer.iter - 1
        if trainer.iter + 1 - trainer.start_iter != self._steps or left < self._steps:
            return
        seconds = trainer.storage.history("time").median(self._steps)
        logger.info(
            f"After {self._steps} steps: {seconds:.3g} s a step, so the {left} that are left take "
            f"about {_duration(left * seconds)}, evaluations not counted"
        )


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"


class FreezeNorm(HookBase):
    """From an iteration on, train with fixed batch-norm statistics.

    At ``iteration`` the statistics are recomputed as their mean over training batches (fvcore's
    precise batch norm); from then on every batch norm normalises with them, as it will in
    evaluation. This closes the gap between the two modes, which small batches of detection
    images make large. Weights and biases of the norms stay trainable. With several processes the
    statistics are the mean over all of them.

    Args:
        iteration: first iteration with fixed statistics.
        model: the model, without a distributed wrapper.
        data_loader: training batches to recompute the statistics from.
        num_batches: how many of them.
    """

    def __init__(self, iteration: int, model: nn.Module, data_loader, num_batches: int):
        self._iteration = iteration
        self._norms = get_bn_modules(model)  # those in training mode: frozen stages are left out
        self._precise_bn = hooks.PreciseBN(0, model, data_loader, num_batches)

    def before_step(self):
        if self.trainer.iter < self._iteration:
            return
        if self.trainer.iter == self._iteration:
            logger.info(f"Fixing the statistics of {len(self._norms)} batch norms from here on")
            self._precise_bn.update_stats()
            self._average_over_processes()
        for norm in self._norms:  # every step: an evaluation in between resets the mode
            norm.eval()

    def _average_over_processes(self):
        processes = comm.get_world_size()
        if processes > 1:  # a plain batch norm has seen the images of its own process only
            for norm in self._norms:
                for statistic in (norm.running_mean, norm.running_var):
                    dist.all_reduce(statistic)
                    statistic /= processes

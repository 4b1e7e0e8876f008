"""Training hooks that Detectron2 does not have."""

import logging

import torch
from fvcore.nn.precise_bn import get_bn_modules
from torch import distributed as dist
from torch import nn

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from ...data.randomness import ITERATION, seed_generators

__all__ = [
    "EstimateTime",
    "FreezeNorm",
    "MetricsWriter",
    "RepeatablePreciseBN",
    "SeedIterations",
    "StopTraining",
]

logger = logging.getLogger(__name__)


class StopTraining(BaseException):
    """Raised by a hook to end the training early, with the reason. It is no failure.

    No ``Exception``: Detectron2's loop would log it as one.
    """


class SeedIterations(HookBase):
    """Make what a step draws at random a function of (seed, iteration, process).

    Detectron2's heads sample proposals with PyTorch's global generators. Seeded anew before each
    step, they draw the same in a run that was interrupted. The first hook of all: others may draw
    before the step does.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def before_step(self):
        number = self.trainer.iter * comm.get_world_size() + comm.get_rank()
        seed_generators(self._seed, ITERATION, number)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(torch.initial_seed())


class RepeatablePreciseBN(hooks.PreciseBN):
    """Detectron2's, with the same batches each time: the first ones of its loader.

    Detectron2's goes on where it was, which a resumed run does not know.
    """

    def update_stats(self):
        self._data_iter = None
        super().update_stats()


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
        self._precise_bn = RepeatablePreciseBN(0, model, data_loader, num_batches)

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


class MetricsWriter(hooks.PeriodicWriter):
    """Detectron2's, which also writes after each evaluation.

    Writers see the latest value of a metric alone: of several evaluations in one period, its file
    would hold the last.

    Args:
        writers, period: as for Detectron2's.
        eval_period: iterations between evaluations; 0: none.
    """

    def __init__(self, writers, period: int = 20, *, eval_period: int):
        super().__init__(writers, period)
        self._eval_period = eval_period

    def after_step(self):
        if self._eval_period > 0 and (self.trainer.iter + 1) % self._eval_period == 0:
            for writer in self._writers:
                writer.write()
        else:
            super().after_step()

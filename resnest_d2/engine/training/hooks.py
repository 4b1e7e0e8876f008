"""Training hooks that Detectron2 does not have."""

import logging

import torch
from fvcore.nn.precise_bn import get_bn_modules
from torch import distributed as dist
from torch import nn

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from ...data.batches.randomness import ITERATION, seed_generators

logger = logging.getLogger(__name__)


class StopTraining(BaseException):
    """Raised by a hook, with the reason, to end the training early.

    Not an ``Exception``: Detectron2's loop would log it as a failure.
    """


class SeedIterations(HookBase):
    """Seeds each iteration by (seed, iteration, process), so that a resumed run draws the same.

    Detectron2's heads sample proposals with PyTorch's global generators. Register it as the first
    hook: others may draw before the step does.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def before_step(self):
        number = self.trainer.iter * comm.get_world_size() + comm.get_rank()
        seed_generators(self._seed, ITERATION, number)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(torch.initial_seed())


class RepeatablePreciseBN(hooks.PreciseBN):
    """Detectron2's, with the first batches of its loader each time, also in a resumed run."""

    def update_stats(self):
        self._data_iter = None
        super().update_stats()


class FreezeNorm(HookBase):
    """Trains with fixed batch-norm statistics from an iteration on.

    At ``iteration`` the statistics are recomputed as their mean over training batches (fvcore's
    precise batch norm), and over the processes. From then on every batch norm normalises with them,
    as in evaluation: with small batches the two modes would differ much. Weights and biases of the
    norms stay trainable.

    Args:
        iteration: the first one with fixed statistics.
        model: the model, without a distributed wrapper.
        data_loader: training batches to recompute the statistics from.
        num_batches: how many of them.
    """

    def __init__(self, iteration: int, model: nn.Module, data_loader, num_batches: int):
        self._iteration = iteration
        self._norms = get_bn_modules(model)  # those in training mode, without frozen stages
        self._precise_bn = RepeatablePreciseBN(0, model, data_loader, num_batches)

    def before_step(self):
        if self.trainer.iter < self._iteration:
            return
        if self.trainer.iter == self._iteration:
            logger.info(f"Fixing the statistics of {len(self._norms)} batch norms from here on")
            self._precise_bn.update_stats()
            processes = comm.get_world_size()
            for norm in self._norms if processes > 1 else ():
                for statistic in (norm.running_mean, norm.running_var):
                    dist.all_reduce(statistic)
                    statistic /= processes
        for norm in self._norms:  # every step: an evaluation in between resets the mode
            norm.eval()


class MetricsWriter(hooks.PeriodicWriter):
    """Detectron2's, which also writes after each evaluation: writers only see the latest metrics.

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

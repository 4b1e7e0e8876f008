"""One step of training, on any device: mixed precision, gradients of several micro-batches."""

import contextlib
import logging
import time

import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer

from ...hardware import has_fast_bfloat16
from ..diagnosis.non_finite import LossGuard
from ..launch.stopping import signals_held_back

logger = logging.getLogger(__name__)


class TrainingStep(SimpleTrainer):
    """Detectron2's step, with autocast and accumulated gradients, on any device.

    If a loss is a mean over images, micro-batches of equal size give the gradient of one large
    batch. The losses of an R-CNN are not: each is divided by the number of samples (proposals,
    foreground boxes) of its own micro-batch, so all micro-batches weigh the same. A batch norm
    takes its statistics from each micro-batch, and updates its running ones with each.

    Weights, gradients and the optimiser stay in float32. The loss is scaled for float16; bfloat16
    has float32's range.

    Args:
        model: the model, with its distributed wrapper.
        data_loader: gives micro-batches.
        micro_batches: per step. Its gradient is the mean of theirs, as with more processes.
        dtype: of autocast; None: float32.
        check_losses: called with the losses and the micro-batch before each backward pass; its
            ``forward_failed`` with the error and the micro-batch if there are no losses.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader,
        optimizer: torch.optim.Optimizer,
        *,
        micro_batches: int = 1,
        dtype: torch.dtype | None = None,
        check_losses: LossGuard | None = None,
    ):
        super().__init__(model, data_loader, optimizer)
        self._micro_batches = micro_batches
        self.dtype = dtype
        self._device = next(model.parameters()).device.type
        self._scaler = torch.amp.GradScaler(self._device) if dtype is torch.float16 else None
        self._check_losses = check_losses

    def run_step(self):
        assert self.model.training, "the model was left in evaluation mode"
        self.optimizer.zero_grad()
        means: dict[str, torch.Tensor] = {}
        data_time = 0.0
        for number in range(1, self._micro_batches + 1):
            start = time.perf_counter()
            begins = self._data_loader_iter_obj is None  # the data workers are started
            with signals_held_back() if begins else contextlib.nullcontext():
                batch = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            wrapped = isinstance(self.model, nn.parallel.DistributedDataParallel)
            last = number == self._micro_batches  # which exchanges the gradients
            with contextlib.nullcontext() if last or not wrapped else self.model.no_sync():
                try:
                    with torch.autocast(self._device, self.dtype, enabled=self.dtype is not None):
                        losses = self.model(batch)
                except FloatingPointError as error:
                    if self._check_losses is not None:
                        self._check_losses.forward_failed(error, batch)
                    raise
                if isinstance(losses, torch.Tensor):
                    losses = {"total_loss": losses}
                if self._check_losses is not None:
                    self._check_losses(losses, batch)
                loss = sum(losses.values()) / self._micro_batches
                (self._scaler.scale(loss) if self._scaler else loss).backward()
            for name, value in losses.items():
                means[name] = means.get(name, 0) + value.detach() / self._micro_batches
        if self._scaler:
            self._scaler.unscale_(self.optimizer)  # before they are read or clipped
        self.after_backward()
        self._write_metrics(means, data_time)
        if self._scaler:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        else:
            self.optimizer.step()

    def release_data(self) -> None:
        """End the iterator over the data, and so its workers."""
        self._data_loader_iter_obj = None

    def state_dict(self):
        state = super().state_dict()
        if self._scaler:
            state["grad_scaler"] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        if self._scaler and "grad_scaler" in state_dict:
            self._scaler.load_state_dict(state_dict["grad_scaler"])


def choose_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The dtype of autocast; None: float32, without autocast."""
    if cfg.SOLVER.AMP.ENABLED or cfg.RESNEST.AMP_DTYPE == "float16":
        return torch.float16
    if cfg.RESNEST.AMP_DTYPE != "auto":
        return torch.bfloat16 if cfg.RESNEST.AMP_DTYPE == "bfloat16" else None
    fast = has_fast_bfloat16(torch.device(cfg.MODEL.DEVICE).type)
    logger.info(
        f"RESNEST.AMP_DTYPE 'auto': this device trains in {'bfloat16' if fast else 'float32'}"
    )
    return torch.bfloat16 if fast else None

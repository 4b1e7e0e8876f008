"""An exponential moving average of the weights (Polyak averaging), by PyTorch's ``swa_utils``.

The average starts at the first weights of the training, and each step moves it by ``1 - decay``
towards the new ones. It is evaluated, and saved as a checkpoint's ``model``, so that every reader
gets it; the trained weights are saved as ``raw_model``.
"""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detectron2.engine import HookBase

RAW_MODEL = "raw_model"
"""Entry of a checkpoint with the trained weights, where ``model`` is their average."""


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """The average of a model's weights, which starts at the present ones.

    Running statistics of batch norms are averaged like weights; whole numbers are copied.

    Args:
        model: without a distributed wrapper. It is copied once.
        decay: share of the average that a step keeps, from 0 to 1.
    """
    move = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(average: list[torch.Tensor], current: list[torch.Tensor], count) -> None:
        if average[0].is_floating_point():
            move(average, current, count)
        else:  # PyTorch's would round a counter's average down: it would never count
            torch._foreach_copy_(average, current)

    averaged = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    averaged.requires_grad_(False)
    averaged.update_parameters(model)  # the first call copies: from the next one on it averages
    return averaged


class TrainedWeights:
    """The trained weights, as a checkpointer's entry beside their average.

    Attributes:
        model: without a distributed wrapper.
        loaded: whether a checkpoint had this entry.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.loaded = False

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(state)
        self.loaded = True


class AverageWeights(HookBase):
    """Updates the average after each step, in every process alike."""

    def __init__(self, averaged: AveragedModel, model: nn.Module):
        self._averaged = averaged
        self._model = model

    def after_step(self):
        self._averaged.update_parameters(self._model)

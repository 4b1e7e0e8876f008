"""Activation checkpointing of a ResNet's stages (Chen et al., arXiv 1604.06174).

A checkpointed stage keeps the inputs of its blocks alone and computes the rest a second time in
the backward pass, by PyTorch's ``torch.utils.checkpoint``. Gradients are the same. What that
function knows nothing of is batch norm, whose running statistics a second forward pass would
update again: here they stand still during it.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from detectron2.modeling.backbone import ResNet

from .checks import ArgumentError, check_choice

__all__ = ["CheckpointedStage", "checkpoint_stages"]


class CheckpointedStage(nn.Sequential):
    """The blocks of a stage, each run under a checkpoint where gradients will be needed.

    State-dict names are those of the ``nn.Sequential`` that it replaces. Without gradients (in
    evaluation, or where both the input and a block are frozen) blocks run as they are.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self:
            trains = x.requires_grad or any(p.requires_grad for p in block.parameters())
            if trains and torch.is_grad_enabled():
                contexts = partial(_contexts, block)
                x = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
            else:
                x = block(x)
        return x


def checkpoint_stages(model: nn.Module, stages: Sequence[str]) -> None:
    """Make stages of the ResNets in ``model`` checkpointed, in place.

    Args:
        model: a Detectron2 ``ResNet`` such as :class:`.resnest.ResNeSt`, or a model that holds one.
        stages: their names, ``"res2"`` ... ``"res5"``.

    Raises:
        ArgumentError: a stage that no ResNet of the model has, with those that there are.
    """
    resnets = [module for module in model.modules() if isinstance(module, ResNet)]
    names = sorted({name for resnet in resnets for name in resnet.stage_names})
    if isinstance(stages, str):
        raise ArgumentError("stages", f"must be a list with some of {names}, got {stages!r}")
    for stage in stages:
        check_choice("stages", stage, names)
    for resnet in resnets:
        for number, name in enumerate(resnet.stage_names):
            if name in stages:
                stage = CheckpointedStage(*resnet.stages[number])
                stage.training = resnet.stages[number].training
                resnet.stages[number] = stage  # what its forward pass runs
                setattr(resnet, name, stage)  # what its parameters are found by


def _contexts(block: nn.Module):
    """Contexts of the forward pass and of its repetition."""
    return contextlib.nullcontext(), _fixed_statistics(block)


@contextlib.contextmanager
def _fixed_statistics(block: nn.Module) -> Iterator[None]:
    """Let the batch norms of a block normalise by the batch, but not remember it.

    They write to copies. (Without statistics, or with momentum 0, some of their classes would save
    other tensors for the backward pass, or count the batch nevertheless.)
    """
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training]
    saved = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, saved, strict=True):
        for name, value in buffers.items():
            setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, saved, strict=True):
            for name, value in buffers.items():
                setattr(norm, name, value)

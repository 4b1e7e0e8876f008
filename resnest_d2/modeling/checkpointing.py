"""What a forward pass need not keep, because the backward pass can compute it again.

Two ways, both by PyTorch's ``torch.utils.checkpoint``, with the gradients that there were:

- A checkpointed stage keeps the inputs of its blocks alone (Chen et al., arXiv 1604.06174) and
  computes all of the rest again.
- With recomputed norms, blocks keep what their convolutions gave, and compute what lies between
  two convolutions again: norm, ReLU, split attention, pool. No convolution runs twice.

What PyTorch's function knows nothing of is batch norm, whose running statistics a second forward
pass would update again: here they stand still during it.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from detectron2.config import CfgNode
from detectron2.modeling.backbone import ResNet

from ..errors import ArgumentError, check_choice

__all__ = [
    "add_checkpointing",
    "CheckpointedStage",
    "checkpoint_stages",
    "convolve",
    "needs_gradients",
    "normalise",
    "recompute_norms",
    "recomputed",
]


class CheckpointedStage(nn.Sequential):
    """The blocks of a stage, each run under a checkpoint where gradients will be needed.

    State-dict names are those of the ``nn.Sequential`` that it replaces. Without gradients (in
    evaluation, or where both the input and a block are frozen) blocks run as they are.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self:
            x = recomputed(block, x, block) if needs_gradients(block, x) else block(x)
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


def recompute_norms(model: nn.Module) -> None:
    """Let the ResNeSt blocks and deep stems in ``model`` compute norms again, in place."""
    for module in model.modules():
        if hasattr(module, "recompute_norm"):
            module.recompute_norm = True


def needs_gradients(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether a backward pass will go through ``module``, called with ``x``."""
    return torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in module.parameters())
    )


@torch.compiler.disable  # it cannot know that the statistics stand still
def recomputed(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, block: nn.Module
) -> torch.Tensor:
    """``function(x)``, of which the backward pass keeps ``x`` alone.

    The repetition ends as soon as it has what the backward pass needs: a convolution at the end
    of ``function`` has its input then, and does not run again.

    Args:
        block: the module with the norms that ``function`` calls.
    """
    contexts = partial(_contexts, block)
    return checkpoint(function, x, use_reentrant=False, context_fn=contexts)


def convolve(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A convolution of Detectron2 without the norm and the activation that belong to it."""
    return conv._conv_forward(x, conv.weight, conv.bias)


def normalise(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The norm of a convolution of Detectron2."""
    return x if conv.norm is None else conv.norm(x)


def _contexts(block: nn.Module):
    """Contexts of the forward pass and of its repetition."""
    return contextlib.nullcontext(), _FixedStatistics(block)


class _FixedStatistics(contextlib.AbstractContextManager):
    """Lets the batch norms of a block normalise by the batch, but not remember it.

    They write to copies. (Without statistics, or with momentum 0, some of their classes would save
    other tensors for the backward pass, or count the batch nevertheless.) It can be entered again:
    a graph that is retained may be passed backward twice.
    """

    def __init__(self, block: nn.Module):
        self.norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training]

    def __enter__(self) -> None:
        self.saved = [dict(norm.named_buffers(recurse=False)) for norm in self.norms]
        for norm, buffers in zip(self.norms, self.saved, strict=True):
            for name, value in buffers.items():
                setattr(norm, name, value.clone())

    def __exit__(self, *error) -> None:
        for norm, buffers in zip(self.norms, self.saved, strict=True):
            for name, value in buffers.items():
                setattr(norm, name, value)


def add_checkpointing(model: nn.Module, cfg: CfgNode) -> None:
    """Do what ``RESNEST.ACTIVATION_CHECKPOINTING`` and ``RECOMPUTE_NORM`` ask for, in place."""
    try:
        checkpoint_stages(model, cfg.RESNEST.ACTIVATION_CHECKPOINTING)
    except ArgumentError as error:
        raise ValueError(f"RESNEST.ACTIVATION_CHECKPOINTING {error.problem}") from None
    if cfg.RESNEST.RECOMPUTE_NORM:
        recompute_norms(model)

"""Activation checkpointing: less memory, because the backward pass computes activations again.

Two ways, both by PyTorch's ``torch.utils.checkpoint`` and with unchanged gradients:

- A checkpointed stage keeps only the inputs of its blocks (Chen et al., arXiv 1604.06174).
- With recomputed norms, a block keeps only the outputs of its convolutions. Norm, ReLU, split
  attention and pooling are computed again; no convolution runs twice.

A second forward pass would update the running statistics of batch norms twice: PyTorch's function
does not prevent that, this module does.
"""

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from detectron2.config import CfgNode
from detectron2.modeling.backbone import ResNet

from ..errors import ArgumentError, check_choice


class CheckpointedStage(nn.Sequential):
    """A stage in which each block is checkpointed, unless it needs no gradients.

    State-dict names are those of the ``nn.Sequential`` that it replaces.
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
        ArgumentError: no ResNet of the model has such a stage; the message has those it has.
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
                setattr(resnet, name, stage)  # where its parameters are found


def recompute_norms(model: nn.Module) -> None:
    """Make the ResNeSt blocks and deep stems in ``model`` recompute norms, in place."""
    for module in model.modules():
        if hasattr(module, "recompute_norm"):
            module.recompute_norm = True


def needs_gradients(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether a backward pass will go through ``module``, called with ``x``."""
    return torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in module.parameters())
    )


@torch.compiler.disable  # it does not know that statistics are not updated
def recomputed(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, block: nn.Module
) -> torch.Tensor:
    """``function(x)``, keeping only ``x`` for the backward pass.

    The second run stops as soon as it has what the backward pass needs: a convolution at the end
    of ``function`` needs only its input, and does not run again.

    Args:
        block: the module with the norms that ``function`` calls.
    """
    return checkpoint(
        function,
        x,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), _FixedStatistics(block)),
    )


def convolve(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Run one of Detectron2's convolutions without its norm and activation."""
    return conv._conv_forward(x, conv.weight, conv.bias)


def normalise(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Run the norm of one of Detectron2's convolutions."""
    return x if conv.norm is None else conv.norm(x)


class _FixedStatistics(contextlib.AbstractContextManager):
    """Inside, the batch norms of a block normalise by the batch without updating their statistics.

    They update copies, because without statistics or with momentum 0 some classes save other
    tensors for the backward pass, or still count the batch. It can be entered again: a retained
    graph may be used for two backward passes.
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
    """Apply ``RESNEST.ACTIVATION_CHECKPOINTING`` and ``RESNEST.RECOMPUTE_NORM`` in place."""
    try:
        checkpoint_stages(model, cfg.RESNEST.ACTIVATION_CHECKPOINTING)
    except ArgumentError as error:
        raise ValueError(f"RESNEST.ACTIVATION_CHECKPOINTING {error.problem}") from None
    if cfg.RESNEST.RECOMPUTE_NORM:
        recompute_norms(model)

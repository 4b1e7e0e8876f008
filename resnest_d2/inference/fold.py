"""Batch norms folded into the convolutions before them.

In evaluation a batch norm is a scale and a shift per channel, and a convolution can do both::

    gamma * (conv(x) - mean) / sqrt(var + eps) + beta = conv'(x)
    weight' = weight * s,  bias' = (bias - mean) * s + beta,  s = gamma / sqrt(var + eps)
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from detectron2.layers import FrozenBatchNorm2d, ModulatedDeformConv

from ..modeling.split_attention import SplitAttentionConv2d


def fold_batch_norms(model: nn.Module) -> int:
    """Fold every batch norm that directly follows a convolution, in place; returns their number.

    That is the ``norm`` of Detectron2's convolutions (plain or deformable), the two norms inside
    split attention, and a batch norm after a convolution in an ``nn.Sequential``. Not folded are
    norms that depend on the input (group norm, batch norm without running statistics) and those of
    Detectron2's ``DeformConv``, which has no bias.

    Raises:
        ValueError: a batch norm is in training mode.
    """
    folded = 0
    for module in model.modules():
        for conv, owner, name in _pairs(module):
            norm = getattr(owner, name)
            if _fold(conv, norm):
                # A convolution without norm has None, other modules have Identity.
                setattr(owner, name, None if owner is conv else nn.Identity())
                folded += 1
    return folded


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """Each convolution, with the module and the attribute that hold the norm after it."""
    if isinstance(module, (nn.Conv2d, ModulatedDeformConv)) and hasattr(module, "norm"):
        yield module, module, "norm"
    if isinstance(module, SplitAttentionConv2d):
        yield module.conv, module, "bn0"
        yield module.fc1, module, "bn1"
    if isinstance(module, nn.Sequential):
        children = list(module.named_children())
        for (_, conv), (name, _) in zip(children, children[1:], strict=False):
            last = getattr(conv, "norm", None) or getattr(conv, "activation", None)
            if isinstance(conv, nn.Conv2d) and not last:
                yield conv, module, name


@torch.no_grad()
def _fold(conv: nn.Module, norm: nn.Module | None) -> bool:
    if not isinstance(norm, (_BatchNorm, FrozenBatchNorm2d)) or norm.running_mean is None:
        return False
    if isinstance(norm, _BatchNorm) and norm.training:
        raise ValueError("batch norms are folded in evaluation mode: call eval() first")
    dtype = conv.weight.dtype
    weight, bias, mean, var, gamma, beta = (  # in float64, so that the result is rounded once
        None if value is None else value.double()
        for value in (
            *(conv.weight, conv.bias),
            *(norm.running_mean, norm.running_var, norm.weight, norm.bias),
        )
    )
    weight, bias = fuse_conv_bn_weights(weight, bias, mean, var, norm.eps, gamma, beta)
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return True

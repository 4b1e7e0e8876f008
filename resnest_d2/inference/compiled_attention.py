"""Split attention in a form that a compiler makes one fast loop of, for inference on a CPU.

The mathematics is that of :mod:`resnest_d2.modeling.split_attention`; three things are written
differently, because Inductor makes something slow of them:

- The softmax over two splits is a sigmoid of their difference. Its softmax lies in memory with the
  splits innermost, which keeps the loop over pixels that reads it from using vector instructions.
- ``lerp`` is multiplied out, which saves its choice between two formulas at each pixel.
- The two layers on the pooled vector are products and sums. As convolutions each is a call of
  oneDNN, at 60 us for some thousand multiplications; here they belong to the loops around them.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ..modeling.split_attention import SplitAttentionConv2d, spatial_mean
from .replace import replace_modules

__all__ = ["FusedSplitAttention", "replace_attention"]


class FusedSplitAttention(nn.Module):
    """A :class:`.SplitAttentionConv2d` of two splits whose batch norms are folded.

    Args:
        of: the layer whose output it gives, plain or deformable. Its weights are shared.
    """

    def __init__(self, of: SplitAttentionConv2d):
        super().__init__()
        self.of = of

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """What the layer's convolution takes -> (N, C, h', w')"""
        x = F.relu_(self.of.conv(*inputs))  # (N, 2*C, h, w)
        first, second = x.chunk(2, dim=1)
        pooled = spatial_mean(x).to(torch.promote_types(x.dtype, torch.float32))
        pooled = pooled.unflatten(1, (2, -1)).sum(dim=1)  # (N, C)
        logits = _linear(F.relu(_linear(pooled, self.of.fc1)), self.of.fc2)
        logits = logits.unflatten(1, (self.of.num_groups, 2, -1))  # (N, K, 2, C/K)
        weight = torch.sigmoid(logits[:, :, 0] - logits[:, :, 1])  # of the first split
        weight = weight.reshape(*first.shape[:2], 1, 1).to(x.dtype)
        return second + weight * (first - second)


def replace_attention(model: nn.Module) -> int:
    """Put a :class:`FusedSplitAttention` in the place of every layer that it can be, in place.

    Returns:
        How many were replaced.
    """
    return replace_modules(model, FusedSplitAttention, _fits)


def _fits(module: nn.Module) -> bool:
    return (
        isinstance(module, SplitAttentionConv2d)
        and module.radix == 2
        and isinstance(module.bn0, nn.Identity)
        and isinstance(module.bn1, nn.Identity)
    )


def _linear(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    """A 1x1 convolution of vectors (N, C_in) -> (N, C_out)."""
    x = x.unflatten(1, (conv.groups, 1, -1))
    weight = conv.weight.to(x.dtype).view(conv.groups, -1, x.shape[-1])
    return (x * weight).sum(dim=-1).flatten(1) + conv.bias.to(x.dtype)

"""Split attention in a form that Inductor compiles to one fast loop, for inference on a CPU.

The same mathematics as :mod:`resnest_d2.modeling.split_attention`, written differently where
Inductor generates slow code:

- The softmax over two splits is a sigmoid of their difference. Inductor stores the softmax with the
  splits innermost, which prevents vector instructions in the loop over pixels.
- ``lerp`` is multiplied out, which avoids its choice between two formulas at each pixel.
- The two layers on the pooled vector are products and sums, fused with the loops around them. As
  convolutions each is a call of oneDNN, which takes 60 us for some thousand multiplications.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ..modeling.split_attention import SplitAttentionConv2d, spatial_mean
from .replace import replace_modules


class FusedSplitAttention(nn.Module):
    """A :class:`.SplitAttentionConv2d` with two splits and folded batch norms.

    Args:
        of: the layer to compute, plain or deformable. Weights are shared.
    """

    def __init__(self, of: SplitAttentionConv2d):
        super().__init__()
        self.of = of

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Inputs of the layer's convolution -> (N, C, h', w')"""
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
    """Use :class:`FusedSplitAttention` wherever possible, in place; returns their number."""

    def fits(module: nn.Module) -> bool:
        return (
            isinstance(module, SplitAttentionConv2d)
            and module.radix == 2
            and isinstance(module.bn0, nn.Identity)
            and isinstance(module.bn1, nn.Identity)
        )

    return replace_modules(model, FusedSplitAttention, fits)


def _linear(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    """A 1x1 convolution of vectors (N, C_in) -> (N, C_out)."""
    x = x.unflatten(1, (conv.groups, 1, -1))
    weight = conv.weight.to(x.dtype).view(conv.groups, -1, x.shape[-1])
    return (x * weight).sum(dim=-1).flatten(1) + conv.bias.to(x.dtype)

"""Split attention (ResNeSt, arXiv 2004.08955, section 3.1; radix-major as in its appendix).

A convolution makes ``radix`` splits, and the output is their sum, weighted by channel::

    gap(c)    = sum over r of mean over space of split_r(c)          (N, C)
    logits    = fc2(relu(bn1(fc1(gap))))                             (N, R*C)
    weight    = softmax over r of logits (radix 1: sigmoid)          (N, R, C)
    output    = sum over r of weight_r * split_r                     (N, C, h, w)

Equal to the official ``SplAtConv2d`` up to rounding, with less time and memory: each split is
pooled before the sum, neither the sum nor the weighted splits are stored, and two splits are fused
by one ``lerp``, because their weights sum to one.
"""

import torch
import torch.nn.functional as F
from torch import nn

from detectron2.layers import Conv2d

from ..errors import ArgumentError
from .init import msra_fill
from .norm import get_norm, needs_second_value

ONE_IMAGE = (
    "Split attention normalises one value per channel and image, and this batch norm has one image "
    "to take statistics from. Train with two or more images per process (SOLVER.IMS_PER_BATCH, "
    "RESNEST.ACCUMULATE), "
    'with SyncBN over several processes, or with MODEL.RESNETS.NORM "FrozenBN" or "GN".'
)


def attention_channels(channels: int, radix: int, num_groups: int) -> int:
    """Channels between ``fc1`` and ``fc2``: a quarter of the channels of all splits, at least 32.

    Rounded up to a multiple of the cardinality; published networks need no rounding.
    """
    inner = max(channels * radix // 4, 32)
    return -(-inner // num_groups) * num_groups


def radix_softmax(logits: torch.Tensor, radix: int, num_groups: int) -> torch.Tensor:
    """Attention weights, softmax over the splits (radix 1: a sigmoid gate).

    Args:
        logits: (N, R*C, 1, 1), output of ``fc2``, ordered by cardinal group, split, channel.

    Returns:
        (N, R, C, 1, 1), at least float32; sums to one over R for R > 1.
    """
    if logits.dtype == torch.float16 or logits.dtype == torch.bfloat16:
        logits = logits.float()
    # (N, K, R, C/K) -> (N, R, K, C/K): from cardinality-major to radix-major
    logits = logits.view(logits.shape[0], num_groups, radix, -1).transpose(1, 2)
    if radix == 1:
        weights = torch.sigmoid(logits)
    else:
        weights = torch.softmax(logits, dim=1)
    return weights.reshape(logits.shape[0], radix, -1, 1, 1)


def fuse_splits(x: torch.Tensor, weights: torch.Tensor, radix: int) -> torch.Tensor:
    """Weighted sum of the splits.

    Args:
        x: (N, R*C, h, w), radix-major.
        weights: (N, R, C, 1, 1). For R = 2 they must sum to one over R.

    Returns:
        (N, C, h, w)
    """
    weights = weights.to(x.dtype)
    if radix == 1:
        return x * weights[:, 0]
    if radix == 2:
        first, second = x.chunk(2, dim=1)
        return torch.lerp(second, first, weights[:, 0])
    splits = x.chunk(radix, dim=1)
    out = splits[0] * weights[:, 0]
    for r in range(1, radix):
        out.addcmul_(splits[r], weights[:, r])
    return out


class SplitAttentionConv2d(nn.Module):
    """A 3x3 convolution followed by norm, ReLU and split attention.

    Shapes: (N, C_in, h, w) -> (N, R*C, h', w') -> (N, C, h', w').

    Args:
        in_channels: C_in, divisible by ``radix * num_groups``.
        out_channels: C, divisible by ``num_groups``.
        radix: number of splits (R in the paper), at least 1.
        num_groups: cardinality (K in the paper).
        stride, dilation: of the convolution.
        norm: see :func:`resnest_d2.modeling.norm.get_norm`.
    """

    conv_class = Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        radix: int = 2,
        num_groups: int = 1,
        stride: int = 1,
        dilation: int = 1,
        norm="BN",
    ):
        super().__init__()
        if radix < 1:
            raise ArgumentError("radix", f"of split attention must be at least 1, got {radix}")
        if in_channels % (radix * num_groups) or out_channels % num_groups:
            raise ArgumentError(
                "radix",
                f"times num_groups must divide the {in_channels} channels of the block, got "
                f"{radix} * {num_groups}",
            )
        self.radix = radix
        self.num_groups = num_groups
        self.conv = self.conv_class(
            in_channels,
            out_channels * radix,
            kernel_size=3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=num_groups * radix,
            bias=False,
        )
        inner = attention_channels(in_channels, radix, num_groups)
        self.bn0 = get_norm(norm, out_channels * radix) or nn.Identity()
        self.fc1 = Conv2d(out_channels, inner, kernel_size=1, groups=num_groups)
        self.bn1 = get_norm(norm, inner, on_vector=True) or nn.Identity()
        self.fc2 = Conv2d(inner, out_channels * radix, kernel_size=1, groups=num_groups)
        for conv in (self.conv, self.fc1, self.fc2):
            msra_fill(conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attend(self.conv(x))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Norm, ReLU and attention over the convolution's output (N, R*C, h, w) -> (N, C, h, w)."""
        x = F.relu_(self.bn0(x))
        # (N, R*C, h, w) -> (N, R, C, 1, 1) -> (N, C, 1, 1)
        gap = spatial_mean(x).view(x.shape[0], self.radix, -1, 1, 1).sum(dim=1)
        gap = self.fc1(gap)
        if not torch.jit.is_scripting():
            if needs_second_value(self.bn1) and gap.shape[0] == 1:
                raise ValueError(ONE_IMAGE)
        logits = self.fc2(F.relu_(self.bn1(gap)))
        weights = radix_softmax(logits, self.radix, self.num_groups)
        return fuse_splits(x, weights, self.radix)


def spatial_mean(x: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) -> (N, C)"""
    if not torch.jit.is_scripting():
        if torch.compiler.is_compiling():
            # For a mean over both axes at once, Inductor compiles maps of up to 4096 positions and
            # larger ones separately.
            return x.mean(dim=3).mean(dim=2)
    return x.mean(dim=(2, 3))

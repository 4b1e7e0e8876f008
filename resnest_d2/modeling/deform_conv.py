"""Deformable convolution (v1: arXiv 1703.06211, v2: 1811.11168), alone and in split attention.

Uses ``torchvision.ops.deform_conv2d``, which supports groups on CPU and GPU, and takes offsets and
masks in the order of Detectron2's operators. Those do not run on the CPU (v2) or ignore groups
there (v1). float16 and bfloat16 are computed in float32, because the operator has no bfloat16.
"""

import torch
from torchvision.ops import deform_conv2d

from detectron2.layers import Conv2d

from .split_attention import SplitAttentionConv2d


class DeformConv2d(Conv2d):
    """Detectron2's ``Conv2d`` with an offset, and in v2 a weight, for each tap and position."""

    def forward(
        self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            x: (N, C_in, H, W)
            offset: (N, 2*G*kh*kw, h, w) in pixels of ``x``, pairs (y, x), for G deformable groups.
            mask: (N, G*kh*kw, h, w), weights of the taps; None for v1.

        Returns:
            (N, C_out, h, w)
        """
        out = self.convolve(x, offset, mask)
        if self.norm is not None:
            out = self.norm(out)
        if self.activation is not None:
            out = self.activation(out)
        return out

    def convolve(
        self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """:meth:`forward` without norm and activation."""
        low = x.dtype == torch.bfloat16 or x.dtype == torch.float16
        dtype = torch.float32 if low else x.dtype
        bias = self.bias
        if bias is not None:  # a conditional expression cannot be scripted
            bias = bias.to(dtype)
        return deform_conv2d(
            x.to(dtype),
            offset.to(dtype),
            self.weight.to(dtype),
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mask=None if mask is None else mask.to(dtype),
        ).to(x.dtype)


class DeformSplitAttentionConv2d(SplitAttentionConv2d):
    """Split attention over a deformable convolution."""

    conv_class = DeformConv2d

    def forward(
        self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See :meth:`DeformConv2d.forward`."""
        return self.attend(self.conv(x, offset, mask))

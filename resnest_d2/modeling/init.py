"""Initial weights for training from scratch."""

import math

from torch import nn

__all__ = ["msra_fill"]


def msra_fill(conv: nn.Conv2d) -> None:
    """Fill a convolution's weight with He's normal distribution (fan out), its bias with zeros.

    The same as fvcore's ``c2_msra_fill`` where ``groups`` is 1. In a grouped convolution an input
    reaches only its own group's outputs, so the fan is ``kernel area * out_channels / groups``:
    split-attention convolutions have ``radix * num_groups`` groups, and counting all outputs
    would start them too small by the root of that.
    """
    fan_out = math.prod(conv.kernel_size) * conv.out_channels / conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)

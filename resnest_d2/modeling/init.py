"""Initial weights for training from scratch."""

import math

from torch import nn


def msra_fill(conv: nn.Conv2d) -> None:
    """Fill a convolution's weight with He's normal distribution (fan out), its bias with zeros.

    Equals fvcore's ``c2_msra_fill`` for one group. In a grouped convolution an input reaches only
    the outputs of its group, so the fan is ``kernel area * out_channels / groups``. Counting all
    outputs would make the weights of split attention too small by ``sqrt(radix * num_groups)``.
    """
    fan_out = math.prod(conv.kernel_size) * conv.out_channels / conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)

"""What a network costs on paper: parameters and multiply-adds."""

import math
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn

__all__ = ["count_multiply_adds", "count_params"]


def count_params(model: nn.Module) -> int:
    """Parameters of a model, frozen ones included.

    Detectron2's FrozenBN has buffers in place of parameters; they do not count.
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, image: torch.Tensor) -> int:
    """Multiply-adds of a model's convolutions and linear layers, as papers count them.

    Norms, activations and pools are left out; of a deformable convolution the bilinear sampling
    is too. The model runs once, on a device with memory: tracing on the meta device fails or counts
    nothing, depending on PyTorch's version.

    Args:
        model: in the mode to be counted; evaluation, as a rule.
        image: its input, (N, 3, H, W). The whole batch is counted.
    """
    analysis = FlopCountAnalysis(model, image)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle("torchvision::deform_conv2d", _deformable)
    by_operator = analysis.by_operator()
    return int(by_operator["conv"] + by_operator["linear"] + by_operator["deform_conv2d"])


def _deformable(inputs: list[Any], outputs: list[Any]) -> int:
    batch, _, height, width = get_shape(outputs[0])
    return batch * height * width * math.prod(get_shape(inputs[1]))  # of the weight

"""Parameters and multiply-adds of a network."""

import math

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn


def count_params(model: nn.Module) -> int:
    """Parameters of a model, frozen ones too; Detectron2's FrozenBN has buffers instead."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, image: torch.Tensor) -> int:
    """Multiply-adds of a model's convolutions and linear layers, as papers count them.

    Norms, activations, pools and the sampling of deformable convolutions are not counted. The model
    runs once, and not on the meta device, where tracing fails with some versions of PyTorch.

    Args:
        model: usually in evaluation mode.
        image: its input, (N, 3, H, W); the whole batch is counted.
    """
    analysis = FlopCountAnalysis(model, image)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle("torchvision::deform_conv2d", _deformable)
    by_operator = analysis.by_operator()
    return int(by_operator["conv"] + by_operator["linear"] + by_operator["deform_conv2d"])


def _deformable(inputs: list, outputs: list) -> int:
    batch, _, height, width = get_shape(outputs[0])
    return batch * height * width * math.prod(get_shape(inputs[1]))  # of the weight

"""Parameters and multiply-adds of a network."""

import math
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn
from torch.utils._pytree import tree_leaves


def count_params(model: nn.Module) -> int:
    """Parameters of a model, frozen ones too; Detectron2's FrozenBN has buffers instead."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, inputs: torch.Tensor | list[dict[str, Any]]) -> int:
    """Multiply-adds of a model's convolutions and linear layers, as papers count them.

    Norms, activations, pools and the sampling of deformable convolutions are not counted. The model
    runs once, and not on the meta device, where tracing fails with some versions of PyTorch.

    Args:
        model: usually in evaluation mode.
        inputs: images, (N, 3, H, W), or the inputs of a model of Detectron2 whose outputs are
            tensors; the whole batch is counted.
    """
    if not isinstance(inputs, torch.Tensor):
        model = _OfPixels(model, inputs)
        inputs = tuple(item["image"] for item in inputs)
    analysis = FlopCountAnalysis(model, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle("torchvision::deform_conv2d", _deformable)
    by_operator = analysis.by_operator()
    return int(by_operator["conv"] + by_operator["linear"] + by_operator["deform_conv2d"])


class _OfPixels(nn.Module):
    """A model of Detectron2 as a function from tensors to tensors, which can be traced."""

    def __init__(self, model: nn.Module, inputs: list[dict[str, Any]]):
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pairs = zip(self.inputs, images, strict=True)
        return tuple(tree_leaves(self.model([{**item, "image": image} for item, image in pairs])))


def _deformable(inputs: list, outputs: list) -> int:
    batch, _, height, width = get_shape(outputs[0])
    return batch * height * width * math.prod(get_shape(inputs[1]))  # of the weight

"""Parts of the forward passes of Detectron2's models."""

import torch
from torch import nn

from detectron2.modeling import RetinaNet
from detectron2.structures import ImageList


def network_input(model: nn.Module, inputs: dict) -> ImageList:
    """One image as the backbone gets it: normalised and padded, (1, 3, H, W).

    Args:
        model: a detector, or a ``SemanticSegmentor``, which has no ``preprocess_image``.
        inputs: of one image, as Detectron2's models take them.
    """
    if hasattr(model, "preprocess_image"):
        return model.preprocess_image([inputs])
    image = (inputs["image"].to(model.device) - model.pixel_mean) / model.pixel_std
    backbone = model.backbone
    return ImageList.from_tensors(
        [image], backbone.size_divisibility, padding_constraints=backbone.padding_constraints
    )


def dense_predictions(
    model: RetinaNet, pixels: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """The outputs of a RetinaNet for all anchors, before non-maximum suppression.

    Args:
        pixels: (N, 3, H, W), normalised and padded.

    Returns:
        The head's feature maps by level; class logits (N, A, classes) and box deltas (N, A, 4) of
        all A anchors, level by level as ``model.anchor_generator`` orders them.
    """
    features = model.backbone(pixels)
    features = [features[name] for name in model.head_in_features]
    logits, deltas = model._transpose_dense_predictions(
        model.head(features), [model.num_classes, 4]
    )
    return features, torch.cat(logits, dim=1), torch.cat(deltas, dim=1)

"""The outputs of a RetinaNet for all anchors, before non-maximum suppression."""

import torch

from detectron2.modeling import RetinaNet


def dense_predictions(
    model: RetinaNet, pixels: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Run backbone and head.

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

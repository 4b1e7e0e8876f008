"""Detectors of each family, small and random, with norms that do something."""

from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model

from resnest_d2 import get_config
from resnest_d2.checkpoint import RECORD_KEY, make_record

FAMILIES = {
    "faster": "faster_rcnn_resnest50_fpn",
    "deformable": "faster_rcnn_resnest50_dcn_fpn",
    "mask": "mask_rcnn_resnest50_fpn",
    "cascade": "cascade_mask_rcnn_resnest50_fpn",
    "keypoint": "keypoint_rcnn_resnest50_fpn",
    "RetinaNet": "retinanet_resnest50_fpn",
    "panoptic": "panoptic_fpn_resnest50",
}

_SMALL = (
    *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", "14", "MODEL.WEIGHTS", ""),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "16", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16"),
    *("MODEL.RESNETS.STEM_WIDTH", "8", "MODEL.FPN.OUT_CHANNELS", "16"),
    *("MODEL.ROI_BOX_HEAD.CONV_DIM", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32"),
    *("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(16, 16)"),
    *("MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.RETINANET.NUM_CLASSES", "3"),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", "50", "TEST.DETECTIONS_PER_IMAGE", "20"),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "MODEL.RETINANET.SCORE_THRESH_TEST", "0.0"),
)


def small_config(family: str, *opts: str) -> CfgNode:
    """The config of a family's small detector."""
    return get_config(FAMILIES[family], (*_SMALL, *opts))


def small_detector(family: str, *opts: str) -> nn.Module:
    """A detector of a family, in evaluation mode."""
    model = build_model(small_config(family, *opts))
    draw_norms(model)
    draw_heads(model)
    return model.eval()


def save_detector(path: Path, family: str, *opts: str) -> Path:
    """A checkpoint of such a detector, with its config and three class names."""
    record = make_record(small_config(family, *opts), ["ant", "bee", "cow"])
    state = small_detector(family, *opts).state_dict()
    torch.save({"model": state, RECORD_KEY: record}, path)
    return path


def draw_norms(model: nn.Module) -> None:
    """Random statistics, scales and shifts for every batch norm, in place."""
    for module in model.modules():
        if isinstance(module, (_BatchNorm, FrozenBatchNorm2d)):
            with torch.no_grad():
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)


def draw_heads(model: nn.Module) -> None:
    """Random weights for every layer of the heads, in place, that keep the size of the features.

    As they are initialised for training, the heads give nearly equal scores: which of two
    detections comes first, or is kept, would be decided by the processor's rounding.
    """
    for name, parameter in model.named_parameters():
        if name.startswith("backbone.") or parameter.dim() < 2:
            continue
        gain = 2**0.5  # behind it is a ReLU
        if name.endswith("anchor_deltas.weight") or name == "head.bbox_pred.weight":
            gain = 0.1  # boxes near their anchors, inside the image
        elif name.endswith(("cls_score.weight", "bbox_pred.weight")):
            gain = 0.5  # scores that are not near 1
        elif name.endswith("score_lowres.weight"):
            gain = 4.0  # heat maps with a peak
        nn.init.normal_(parameter, std=gain / parameter[0].numel() ** 0.5)


def image(height: int = 96, width: int = 128) -> dict:
    """An input of a detector: noise of large and small grain."""
    coarse = torch.rand(1, 3, 6, 8)
    pixels = nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    pixels = 200 * pixels + 55 * torch.rand(3, height, width)
    return {"image": pixels, "height": height, "width": width}

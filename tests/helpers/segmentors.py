"""Models for semantic segmentation with each head, small and random."""

from pathlib import Path

import torch
from detectors import draw_heads, draw_norms, image
from torch import nn

from detectron2.config import CfgNode
from detectron2.modeling import build_model

from resnest_d2 import get_config
from resnest_d2.checkpoint import RECORD_KEY, make_record

HEADS = {
    "DeepLabV3": "deeplabv3_resnest50_ade20k",
    "FCN": "fcn_resnest50_ade20k",
    "Detectron2's DeepLabV3": "deeplabv3_resnest50_pcontext",
    "Detectron2's DeepLabV3+": "deeplabv3plus_resnest101_cityscapes",
}
CLASSES = ("ant", "bee", "cow", "dog", "elk")

SMALL = (
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.DEPTH", "14"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "16", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16"),
    *("MODEL.RESNETS.STEM_WIDTH", "8", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16"),
    *("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "16"),
)


def head_opts(head: str) -> tuple[str, ...]:
    """Options that make the recipe's head this one."""
    if head != "Detectron2's DeepLabV3":
        return ()
    return (
        *("MODEL.SEM_SEG_HEAD.NAME", "DeepLabV3Head"),
        *("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res5']", "MODEL.RESNETS.OUT_FEATURES", "['res5']"),
    )


def segmentor_config(head: str, *opts: str) -> CfgNode:
    classes = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(len(CLASSES)))
    return get_config(HEADS[head], (*SMALL, *classes, *head_opts(head), *opts))


def small_segmentor(head: str, *opts: str) -> nn.Module:
    """A model with a head, in evaluation mode, that finds several classes."""
    model = build_model(segmentor_config(head, *opts))
    draw_norms(model)
    draw_heads(model)
    model.eval()
    layers = [
        layer
        for name, layer in model.sem_seg_head.named_modules()
        if name.endswith("predictor") and "aux_head" not in name
    ]
    (predictor,) = layers
    with torch.no_grad():  # logits of mean 0 and deviation 1, so that no class is everywhere
        std, mean = torch.std_mean(model([image()])[0]["sem_seg"], dim=(1, 2))
        predictor.weight /= std[:, None, None, None]
        predictor.bias.sub_(mean).div_(std)
    return model


def save_segmentor(path: Path, head: str, *opts: str) -> Path:
    """A checkpoint of such a model, with its config and class names."""
    record = make_record(segmentor_config(head, *opts), list(CLASSES))
    torch.save({"model": small_segmentor(head, *opts).state_dict(), RECORD_KEY: record}, path)
    return path

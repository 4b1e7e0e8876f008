"""The network: split attention, the ResNeSt backbone, and its builders in Detectron2's registry."""

from .build import (
    build_resnest_backbone,
    build_resnest_fpn_backbone,
    build_resnest_retinanet_fpn_backbone,
)
from .resnest import VARIANTS, ResNeSt
from .split_attention import SplitAttentionConv2d

__all__ = [
    "VARIANTS",
    "ResNeSt",
    "SplitAttentionConv2d",
    "build_resnest_backbone",
    "build_resnest_fpn_backbone",
    "build_resnest_retinanet_fpn_backbone",
]

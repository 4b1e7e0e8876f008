"""The network: modules and functions on tensors, and the builders in Detectron2's registry.

Only ``build.py`` and ``checkpointing.add_checkpointing`` read a config. No files: weights are in
``checkpoint/``.
"""

from .build import (
    build_resnest_backbone,
    build_resnest_fpn_backbone,
    build_resnest_retinanet_fpn_backbone,
)
from .image_classifier import ImageClassifier
from .resnest import VARIANTS, ResNeSt
from .sem_seg_heads import ResNeStDeepLabV3Head, ResNeStFCNHead
from .split_attention import SplitAttentionConv2d

__all__ = [
    "VARIANTS",
    "ImageClassifier",
    "ResNeSt",
    "ResNeStDeepLabV3Head",
    "ResNeStFCNHead",
    "SplitAttentionConv2d",
    "build_resnest_backbone",
    "build_resnest_fpn_backbone",
    "build_resnest_retinanet_fpn_backbone",
]

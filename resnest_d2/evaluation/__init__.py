"""Evaluation: boxes, masks, keypoints, semantic and panoptic segmentation."""

from .build import SEMANTIC_ARCHITECTURES, build_evaluator
from .coco import build_coco_evaluator, write_results
from .panoptic import PanopticEvaluator

__all__ = [
    "SEMANTIC_ARCHITECTURES",
    "PanopticEvaluator",
    "build_coco_evaluator",
    "build_evaluator",
    "write_results",
]

"""Evaluation: boxes, masks, keypoints, semantic and panoptic segmentation."""

from .build import SEMANTIC_ARCHITECTURES, build_evaluator
from .coco import CocoEvaluator, build_coco_evaluator, write_results
from .coco_metrics import IMPLEMENTATIONS, evaluate_results
from .ground_truth import GroundTruth
from .panoptic import PanopticEvaluator

__all__ = [
    "IMPLEMENTATIONS",
    "SEMANTIC_ARCHITECTURES",
    "CocoEvaluator",
    "GroundTruth",
    "PanopticEvaluator",
    "build_coco_evaluator",
    "build_evaluator",
    "evaluate_results",
    "write_results",
]

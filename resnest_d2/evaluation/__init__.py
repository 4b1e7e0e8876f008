"""Evaluation: boxes, masks, keypoints, semantic and panoptic segmentation."""

from .._moved import moved_names
from .accuracy import Accuracy, measure_accuracy
from .coco_evaluator import CocoEvaluator, build_coco_evaluator, results_json, write_results
from .coco_metrics import IMPLEMENTATIONS, evaluate_results
from .evaluators import SEMANTIC_ARCHITECTURES, build_evaluator
from .ground_truth import GroundTruth
from .metrics_table import ap_table
from .panoptic_evaluator import PanopticEvaluator

__all__ = [
    "IMPLEMENTATIONS",
    "SEMANTIC_ARCHITECTURES",
    "Accuracy",
    "CocoEvaluator",
    "GroundTruth",
    "PanopticEvaluator",
    "ap_table",
    "build_coco_evaluator",
    "build_evaluator",
    "evaluate_results",
    "measure_accuracy",
    "results_json",
    "write_results",
]

__getattr__ = moved_names("evaluation", ["analysis"])

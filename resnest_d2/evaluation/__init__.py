"""Metrics of every task: boxes, masks, keypoints, semantic and panoptic segmentation.

Numbers and their text. What a model gets wrong, and how two runs differ, is in ``analysis``.
"""

from .._moved import moved_names
from .accuracy import Accuracy, measure_accuracy
from .coco_evaluator import CocoEvaluator, build_coco_evaluator
from .coco_metrics import IMPLEMENTATIONS, evaluate_results
from .evaluators import SEMANTIC_ARCHITECTURES, build_evaluator
from .ground_truth import GroundTruth
from .image_confusions import ImageConfusions
from .metrics_text import ap_table, plain_values, results_json, write_results
from .panoptic_evaluator import PanopticEvaluator
from .sem_seg_evaluator import SegmentationEvaluator

__all__ = [
    "IMPLEMENTATIONS",
    "SEMANTIC_ARCHITECTURES",
    "Accuracy",
    "CocoEvaluator",
    "GroundTruth",
    "ImageConfusions",
    "PanopticEvaluator",
    "SegmentationEvaluator",
    "ap_table",
    "build_coco_evaluator",
    "build_evaluator",
    "evaluate_results",
    "measure_accuracy",
    "plain_values",
    "results_json",
    "write_results",
]

__getattr__ = moved_names("evaluation", ["analysis"])

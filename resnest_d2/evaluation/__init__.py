"""Evaluation: boxes, masks, keypoints, semantic and panoptic segmentation."""

from .accuracy import Accuracy, measure_accuracy
from .analysis import ERRORS, Analysis, Detection, ImageOutcomes, Outcome, analyse_results
from .build import SEMANTIC_ARCHITECTURES, build_evaluator
from .coco import CocoEvaluator, build_coco_evaluator, results_json, write_results
from .coco_metrics import IMPLEMENTATIONS, evaluate_results
from .comparison import Comparison, Gain, Side, TaskComparison, compare_runs, require_same_data
from .config_changes import config_changes, network_changes, recipe_changes
from .evaluated import EvaluatedRun, find_runs, read_evaluated_run
from .ground_truth import GroundTruth
from .panoptic import PanopticEvaluator

__all__ = [
    "ERRORS",
    "IMPLEMENTATIONS",
    "SEMANTIC_ARCHITECTURES",
    "Accuracy",
    "Analysis",
    "CocoEvaluator",
    "Comparison",
    "Detection",
    "EvaluatedRun",
    "Gain",
    "GroundTruth",
    "ImageOutcomes",
    "Outcome",
    "PanopticEvaluator",
    "Side",
    "TaskComparison",
    "analyse_results",
    "build_coco_evaluator",
    "build_evaluator",
    "compare_runs",
    "config_changes",
    "evaluate_results",
    "find_runs",
    "measure_accuracy",
    "network_changes",
    "read_evaluated_run",
    "recipe_changes",
    "require_same_data",
    "results_json",
    "write_results",
]

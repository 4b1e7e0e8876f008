"""What a model gets wrong, how two runs differ, what a network looks at: numbers and tables.

Their charts are in ``draw``; COCO's own metrics are in ``evaluation``.
"""

from .analysed_runs import ConfusionStudy, DetectionStudy, Study, study_runs
from .attention import (
    NO_ATTENTION,
    BlockAttention,
    ClassAttention,
    attention_by_class,
    image_attention,
    record_attention,
    save_attention,
)
from .comparing.comparison import (
    Comparison,
    Gain,
    Side,
    TaskComparison,
    compare_runs,
    require_same_data,
)
from .config_changes import config_changes, network_changes, recipe_changes
from .confusion_run import ClassificationRun, ConfusionRun, SegmentationRun
from .detection_run import DetectionRun
from .evaluated_run import find_runs, read_evaluated_run
from .mistakes import ERRORS, Analysis, Detection, ImageOutcomes, Outcome, analyse_results
from .run_folder import EvaluatedRun
from .saliency import Saliency, check_saliency, explain_detection

__all__ = [
    "ERRORS",
    "NO_ATTENTION",
    "Analysis",
    "BlockAttention",
    "ClassAttention",
    "ClassificationRun",
    "Comparison",
    "ConfusionRun",
    "ConfusionStudy",
    "Detection",
    "DetectionRun",
    "DetectionStudy",
    "EvaluatedRun",
    "Gain",
    "ImageOutcomes",
    "Outcome",
    "Saliency",
    "SegmentationRun",
    "Side",
    "Study",
    "TaskComparison",
    "analyse_results",
    "attention_by_class",
    "check_saliency",
    "compare_runs",
    "config_changes",
    "explain_detection",
    "find_runs",
    "image_attention",
    "network_changes",
    "read_evaluated_run",
    "recipe_changes",
    "record_attention",
    "require_same_data",
    "save_attention",
    "study_runs",
]

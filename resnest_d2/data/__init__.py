"""Data sets: checked and registered COCO files, and the sample set that needs no download."""

from .coco import (
    CocoSummary,
    check_coco_json,
    check_same_classes,
    register_coco,
    require_registered,
)
from .mapper import build_train_mapper, check_jitter
from .panoptic import register_coco_panoptic, write_stuff_masks
from .shapes import sample_set
from .summary import TrainingData, summarise_training_data

__all__ = [
    "CocoSummary",
    "TrainingData",
    "build_train_mapper",
    "check_coco_json",
    "check_jitter",
    "check_same_classes",
    "register_coco",
    "register_coco_panoptic",
    "require_registered",
    "sample_set",
    "summarise_training_data",
    "write_stuff_masks",
]

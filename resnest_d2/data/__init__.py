"""Data sets: checking, repairing, splitting and registering files; reading images; loading batches.

Also the sample set. Which data a run uses, and what it refuses, is decided in :mod:`..engine`.
"""

import warnings

from .batches.loader import SAMPLERS, TrainLoader, build_test_loader, build_train_loader
from .batches.mapper import build_train_mapper, check_jitter, check_sizes
from .batches.worker_errors import DataWorkerError, explained_worker_errors
from .check.data_sets import check_coco, check_sets
from .check.problems import Problem
from .check.repair import fix_coco
from .check.summary import CocoSummary
from .folders.class_sets import register_imagenet
from .folders.label_folders import register_label_maps
from .formats.coco import (
    check_coco_json,
    register_coco,
    require_registered,
    require_same_categories,
)
from .formats.panoptic import register_coco_panoptic, write_stuff_masks
from .formats.semantic_sets import register_pascal_context, write_labels_from_zero
from .sample_shapes import sample_set
from .split import split_coco
from .stats import coco_stats, label_stats
from .training_data import TrainingData, summarise_training_data

__all__ = [
    "SAMPLERS",
    "CocoSummary",
    "DataWorkerError",
    "Problem",
    "TrainLoader",
    "TrainingData",
    "build_test_loader",
    "build_train_loader",
    "build_train_mapper",
    "check_coco",
    "check_coco_json",
    "check_jitter",
    "check_sizes",
    "check_sets",
    "coco_stats",
    "explained_worker_errors",
    "fix_coco",
    "label_stats",
    "register_coco",
    "register_coco_panoptic",
    "register_imagenet",
    "register_label_maps",
    "register_pascal_context",
    "require_registered",
    "require_same_categories",
    "sample_set",
    "split_coco",
    "summarise_training_data",
    "write_labels_from_zero",
    "write_stuff_masks",
]


def __getattr__(name: str):
    if name != "check_same_classes":
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    message = f"{__name__}.check_same_classes is now {__name__}.require_same_categories"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return require_same_categories

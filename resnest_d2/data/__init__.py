"""Data sets (checked and registered COCO files, the sample set that needs no download), loaders."""

from .check.data_sets import CocoSummary, check_coco, check_sets
from .check.fix import fix_coco
from .check.problems import Problem
from .formats.coco import (
    check_coco_json,
    check_same_classes,
    register_coco,
    require_registered,
)
from .formats.panoptic import register_coco_panoptic, write_stuff_masks
from .loader import SAMPLERS, TrainLoader, build_test_loader, build_train_loader
from .mapper import build_train_mapper, check_jitter, check_sizes
from .sample_shapes import sample_set
from .split import split_coco
from .stats import coco_stats
from .training_data import TrainingData, summarise_training_data
from .worker_errors import DataWorkerError, explained_worker_errors

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
    "check_same_classes",
    "check_sets",
    "coco_stats",
    "explained_worker_errors",
    "fix_coco",
    "register_coco",
    "register_coco_panoptic",
    "require_registered",
    "sample_set",
    "split_coco",
    "summarise_training_data",
    "write_stuff_masks",
]

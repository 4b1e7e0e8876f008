"""Trained detectors made faster, with the outputs that they had."""

from .fold import fold_batch_norms
from .optimize import optimize_for_inference
from .pooling import FastROIPooler, replace_poolers

__all__ = [
    "FastROIPooler",
    "fold_batch_norms",
    "optimize_for_inference",
    "optimize_for_inference",
    "replace_poolers",
]

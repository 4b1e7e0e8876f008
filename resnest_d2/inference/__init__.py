"""A trained model made faster; inputs and outputs unchanged.

Nothing here reads files or configs. Prediction is in ``predict/``, other formats in ``export/``.
"""

from .fold import fold_batch_norms
from .optimize import optimize_for_inference
from .pooling import FastROIPooler, replace_poolers

__all__ = [
    "FastROIPooler",
    "fold_batch_norms",
    "optimize_for_inference",
    "replace_poolers",
]

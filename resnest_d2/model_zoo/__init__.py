"""What exists: models, their recipes, their weights, and how these get here."""

from .download import DownloadError, fetch
from .handler import register_handler, resolve_weights
from .weights import WEIGHTS, WeightFile

__all__ = [
    "WEIGHTS",
    "DownloadError",
    "WeightFile",
    "fetch",
    "register_handler",
    "resolve_weights",
]

"""What exists: models, their recipes, their weights, and how these get here."""

from .weights import WEIGHTS, WeightFile

__all__ = ["WEIGHTS", "WeightFile"]

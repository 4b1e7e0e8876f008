"""What exists: models, their recipes, their weights, and how these get here."""

from .catalog import MODELS, TASKS, Model, Published, find_model, get, get_config, list_models
from .imagenet import CLASSIFIERS, Classifier
from .measured import MEASURED, Measured
from .weights import WEIGHTS, WeightFile

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "MEASURED",
    "MODELS",
    "Measured",
    "Model",
    "Published",
    "TASKS",
    "WEIGHTS",
    "WeightFile",
    "find_model",
    "get",
    "get_config",
    "list_models",
]

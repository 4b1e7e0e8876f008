"""The catalog of models, their recipes and published weights, and the download of weights.

No network is defined here and nothing is trained. The catalog as text is in
``resnest_d2_command.zoo``, which reads ``catalog.json``: the catalog as ``tools/make_model_zoo.py``
writes it.
"""

from .catalog import MODELS, TASKS, Model, Published, find_model, get, get_config, list_models
from .download import DownloadError, fetch
from .handler import register_handler, resolve_weights
from .imagenet import CLASSIFIERS, Classifier
from .measured import MEASURED, Measured
from .pretrained import load_pretrained
from .weights import WEIGHTS, WeightFile

__all__ = [
    "CLASSIFIERS",
    "MEASURED",
    "MODELS",
    "TASKS",
    "WEIGHTS",
    "Classifier",
    "DownloadError",
    "Measured",
    "Model",
    "Published",
    "WeightFile",
    "fetch",
    "find_model",
    "get",
    "get_config",
    "list_models",
    "load_pretrained",
    "register_handler",
    "resolve_weights",
]

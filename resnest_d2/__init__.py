"""ResNeSt (Split-Attention Networks, arXiv 2004.08955) as a backbone for any Detectron2 model.

Importing this package registers the backbone builders, the heads for semantic segmentation, the
image classifier, the ``resnest://`` weights prefix and the data sets of ImageNet and Pascal Context
with Detectron2, and makes Detectron2's backbones scriptable. Nothing else happens on import.
"""

from . import (
    _detectron2,  # noqa: F401  (first: where Detectron2 is missing, it says how to get it)
    _moved,
)
from .api import RunResult, evaluate, train
from .config import add_resnest_config, get_config, list_configs
from .data import register_coco, register_imagenet, register_pascal_context
from .inference import optimize_for_inference
from .model_zoo import load_pretrained, register_handler
from .modeling import (
    ResNeSt,
    build_resnest_backbone,
    build_resnest_fpn_backbone,
    build_resnest_retinanet_fpn_backbone,
)
from .predict.predictor import Predictor
from .version import __version__

register_handler()
register_imagenet()
register_pascal_context()
ResNeSt.weights_loader = load_pretrained
_moved.install()

__all__ = [
    "Predictor",
    "ResNeSt",
    "RunResult",
    "__version__",
    "add_resnest_config",
    "build_resnest_backbone",
    "build_resnest_fpn_backbone",
    "build_resnest_retinanet_fpn_backbone",
    "evaluate",
    "get_config",
    "list_configs",
    "model_zoo",
    "optimize_for_inference",
    "register_coco",
    "train",
]

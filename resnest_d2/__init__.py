"""ResNeSt (Split-Attention Networks, arXiv 2004.08955) as a backbone for any Detectron2 model.

Importing this package registers the backbone builders and the ``resnest://`` weights prefix with
Detectron2, and makes Detectron2's backbones scriptable. Nothing else happens on import.
"""

try:
    import detectron2
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    raise ModuleNotFoundError(
        "resnest_d2 needs Detectron2, which is not on the package index under its own name. "
        "Install PyTorch, then either the official source:\n"
        "    pip install --no-build-isolation "
        "'git+https://github.com/facebookresearch/detectron2.git'\n"
        "or, from a checkout of this project:\n"
        "    python tools/install_detectron2.py",
        name="detectron2",
    ) from None
del detectron2

# Gives Detectron2's ResNet and FPN what torch.jit.script needs of them.
import detectron2.export.torchscript  # noqa: F401

from .checkpoint import register_handler
from .config import add_resnest_config, get_config
from .modeling import (
    ResNeSt,
    build_resnest_backbone,
    build_resnest_fpn_backbone,
    build_resnest_retinanet_fpn_backbone,
)
Predictor = None
from .version import __version__

register_handler()

__all__ = [
    "Predictor",
    "ResNeSt",
    "__version__",
    "add_resnest_config",
    "build_resnest_backbone",
    "build_resnest_fpn_backbone",
    "build_resnest_retinanet_fpn_backbone",
    "get_config",
]

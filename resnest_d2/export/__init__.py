"""Models as files that run without Detectron2: TorchScript, ONNX, torch.export.

Each file is verified against the model. Speed of the files is measured in ``benchmark/``.
"""

from .export import Export, export_checkpoint, model_inputs
from .parts import PARTS
from .run_file import open_file
from .verify import Agreement
from .write import FORMATS

__all__ = [
    "FORMATS",
    "PARTS",
    "Agreement",
    "Export",
    "export_checkpoint",
    "model_inputs",
    "open_file",
]

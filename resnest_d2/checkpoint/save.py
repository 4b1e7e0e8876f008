"""Checkpoints that say what they are: config and class names travel with the weights.

Stock Detectron2 loads such a file: the record is one more entry beside ``model``.
"""

import os
import re
from collections.abc import Sequence

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode

from ..version import __version__
from .load import RECORD_KEY

__all__ = ["RunCheckpointer", "make_record"]

_RUN_FILE = re.compile(r"last_checkpoint|model_(\d+|final)\.pth")  # Detectron2's names


def make_record(cfg: CfgNode, class_names: Sequence[str]) -> dict:
    """What prediction needs beside the weights, as plain types.

    The config holds the input format and statistics (``INPUT.FORMAT``, ``MODEL.PIXEL_MEAN``,
    ``MODEL.PIXEL_STD``).
    """
    return {"config": cfg.dump(), "class_names": list(class_names), "version": __version__}


class RunCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with a record in each file, and strict where asked.

    Args:
        record: see :func:`make_record`; None writes none.
        whole: refuse a file that does not fill every weight of the model. Evaluation needs that:
            random heads detect nothing, without a word.
    """

    def __init__(self, model, save_dir="", *, record=None, whole=False, **kwargs):
        super().__init__(model, save_dir, **kwargs)
        self._record = record
        self._whole = whole

    @staticmethod
    def has_last(folder: str) -> bool:
        """Whether ``folder`` names a last checkpoint, which resuming would load."""
        return os.path.isfile(os.path.join(folder, "last_checkpoint"))

    @staticmethod
    def found_in(folder: str) -> list[str]:
        """Files of a run in ``folder`` that another run would overwrite, sorted."""
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return sorted(name for name in names if _RUN_FILE.fullmatch(name))

    def save(self, name, **kwargs):
        if self._record is not None:
            kwargs[RECORD_KEY] = self._record
        super().save(name, **kwargs)

    def _load_model(self, checkpoint):
        incompatible = super()._load_model(checkpoint)
        if self._whole:
            lacking = [*incompatible.missing_keys]
            lacking += [name for name, *_ in incompatible.incorrect_shapes]
            if lacking:
                raise ValueError(
                    f"MODEL.WEIGHTS fills {len(self.model.state_dict()) - len(lacking)} of "
                    f"{len(self.model.state_dict())} tensors of the model; missing or of another "
                    f"shape: {', '.join(lacking[:5])}{', …' if len(lacking) > 5 else ''}. "
                    "Evaluation needs a whole detector's weights"
                )
        return incompatible

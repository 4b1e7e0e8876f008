"""Detection with a trained model: one image (``predictor``), or many files into a folder that
can be continued.

Faster models are made in ``inference/``, drawings in ``draw/``.
"""

from .many_files import PICTURE_FORMATS, FilePredictions, predict_files

__all__ = ["PICTURE_FORMATS", "FilePredictions", "predict_files"]

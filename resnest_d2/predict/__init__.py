"""Prediction of many files into one folder, which goes on where it stopped."""

from .many_files import PICTURE_FORMATS, FilePredictions, predict_files

__all__ = ["PICTURE_FORMATS", "FilePredictions", "predict_files"]

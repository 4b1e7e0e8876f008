"""Prediction: one predictor, and many files into one folder, which goes on where it stopped.

``resnest_d2.Predictor`` is in ``predictor``, :func:`.many_files.predict_files` in ``many_files``.
Pictures of what was found are drawn in ``draw``.
"""

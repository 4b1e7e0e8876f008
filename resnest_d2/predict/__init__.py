"""Detection with a trained model, in one image or in many files.

``resnest_d2.Predictor`` is in ``predictor``, :func:`.many_files.predict_files` in ``many_files``.
Faster models are made in ``inference/``, drawings in ``draw/``.
"""

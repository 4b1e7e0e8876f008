"""Latency of an exported file beside the model that it was made from."""

import os
from functools import partial

import numpy as np
import torch

from detectron2.config import CfgNode

from ..export import model_inputs, open_file
from ..predict.predictor import Predictor
from .latency import alternate


def measure_exported(
    source: str | os.PathLike,
    file: str | os.PathLike,
    image: np.ndarray,
    *,
    config: str | os.PathLike | CfgNode | None = None,
    format: str,
    runs: int = 10,
) -> dict[str, tuple[float, ...]]:
    """Time an exported model, the model itself, and the optimized model, in turn on the CPU.

    Args:
        source, config: the checkpoint and its config, as for ``Predictor``.
        file, format: the export. A ValueError unless it is of the whole model.
        image: RGB (3, H, W), 0-255, float32.

    Returns:
        Milliseconds by name: the format, ``"model"`` and ``"optimized"``.
    """
    run, metadata = open_file(os.fspath(file), format)
    if not metadata["whole_model"]:
        raise ValueError(
            f"{file} does not give the results of the model: only a whole model is timed here"
        )
    options = {"device": "cpu", "score_threshold": metadata["score_threshold"]}
    models = [
        Predictor(source, config=config, optimize=optimize, **options).model
        for optimize in (False, True)
    ]
    inputs = model_inputs(image, metadata["normalisation_inside"]["format"])

    def forward(model):
        with torch.inference_mode():
            return model(inputs)

    calls = [partial(run, image), *(partial(forward, model) for model in models)]
    times = alternate(calls, runs=runs, doing="timing")
    return dict(zip((format, "model", "optimized"), times, strict=True))

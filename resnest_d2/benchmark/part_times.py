"""How the time of a model is divided between its parts, from the file to the result."""

import contextlib
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn

from detectron2.data import transforms as T

from ..data.image_reader import read_image
from ..export import model_inputs


def part_times(
    model: nn.Module, run: Callable[[list[dict]], object], size: tuple[int, int], *, runs: int = 5
) -> dict[str, float]:
    """Median milliseconds by part of decoding and resizing an image and running a model on it.

    The image is a JPEG file of noise. Work left on a GPU is waited for after each part.

    Args:
        model: a model of Detectron2, optimized or not.
        run: calls it with its inputs.
        size: height and width of the image and of the resized image, pixels.

    Returns:
        By part, in the order of their first call. ``rest`` is postprocessing and all in between.
    """
    clock = _Clock()
    resize = T.Resize(size)

    def preprocess(image: np.ndarray) -> list[dict]:
        resized = resize.get_transform(image).apply_image(image)
        return model_inputs(resized.transpose(2, 0, 1), "RGB")

    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as patches:
        file = Path(folder) / "image.jpg"
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(file)
        for part, module, name in _methods(model):
            timed = clock.timed(part, getattr(module, name))
            patches.enter_context(mock.patch.object(module, name, timed))
        for _ in range(1 + runs):
            clock.times = Counter()
            start = time.perf_counter()
            image = clock.timed("decode", read_image)(file).pixels
            run(clock.timed("preprocess", preprocess)(image))
            clock.wait()
            rest = 1000 * (time.perf_counter() - start) - clock.times.total()
            rounds.append({**clock.times, "rest": rest})
    rounds = rounds[1:]  # the first is to warm up
    parts = {part: None for times in rounds for part in times}
    return {part: statistics.median(t.get(part, 0.0) for t in rounds) for part in parts}


def _methods(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Parts: a name, a module, the method. None of them calls another."""
    if hasattr(model, "preprocess_image"):
        yield "normalise", model, "preprocess_image"
    yield "backbone", model.backbone, "forward"
    if hasattr(model, "head"):
        yield "head", model.head, "forward"
        yield "inference", model, "forward_inference"
        return
    if hasattr(model, "sem_seg_head"):
        yield "semantic head", model.sem_seg_head, "forward"
    if not hasattr(model, "roi_heads"):
        return
    proposals, heads = model.proposal_generator, model.roi_heads
    yield "RPN head", proposals.rpn_head, "forward"
    yield "proposals", proposals, "predict_proposals"
    for part in ("box", "mask", "keypoint"):
        if hasattr(heads, f"{part}_pooler"):
            yield f"{part} pooling", getattr(heads, f"{part}_pooler"), "forward"
        for stage in _stages(getattr(heads, f"{part}_head", None)):
            yield f"{part} head", stage, "forward" if part == "box" else "layers"
    for predictor in _stages(heads.box_predictor):
        yield "box predictor", predictor, "forward"
        yield "box inference", predictor, "inference"


def _stages(module: nn.Module | None) -> list[nn.Module]:
    """The stages of a cascade, or one module; none without it."""
    if module is None:
        return []
    return list(module) if isinstance(module, nn.ModuleList) else [module]


class _Clock:
    """Adds up milliseconds by name. Of nested calls only the outer one is timed."""

    def __init__(self):
        self.times: Counter = Counter()
        self.running = False

    def wait(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def timed(self, part: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            if self.running:
                return function(*args, **kwargs)
            self.running, start = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.wait()
                self.running = False
                self.times[part] += 1000 * (time.perf_counter() - start)

        return call

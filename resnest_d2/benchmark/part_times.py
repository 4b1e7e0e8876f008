"""Where a detector's time goes, from the file to the result."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from detectron2.data import transforms as T

from ..data.image_reader import read_picture

__all__ = ["part_times"]


def part_times(
    model: nn.Module, run: Callable[[list[dict]], object], size: tuple[int, int], *, runs: int = 5
) -> dict[str, float]:
    """Median milliseconds by part of decoding, resizing and detecting in one picture.

    The picture is noise, a JPEG file of ``size``, resized to the same size. Times are those of the
    caller's thread: work that is left on a GPU is waited for after each part.

    Args:
        model: a detector of Detectron2, optimised or not.
        run: calls it with its inputs.
        size: height and width, pixels.

    Returns:
        By part, in the order of their first call, with ``rest``: postprocessing, what is between.
    """
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.jpg"
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(file)
        resize = T.Resize(size)
        originals = [
            (module, name, module.__dict__.get(name), clock.timed(part, getattr(module, name)))
            for part, module, name in _methods(model)
        ]
        try:
            for module, name, _, timed in originals:
                object.__setattr__(module, name, timed)
            rounds = []
            for _ in range(runs + 1):
                clock.times = {}
                clock.inside = None
                start = time.perf_counter()
                image = clock.timed("decode", read_picture)(file).pixels
                inputs = clock.timed("preprocess", _inputs)(image, resize)
                run([inputs])
                clock.wait()
                times = dict(clock.times)
                times["rest"] = 1000 * (time.perf_counter() - start) - sum(times.values())
                rounds.append(times)
        finally:
            for module, name, own, _ in originals:
                if own is None:
                    del module.__dict__[name]
                else:
                    object.__setattr__(module, name, own)
    rounds = rounds[1:]  # the first is to warm up
    parts = {part: None for times in rounds for part in times}
    return {part: statistics.median(t.get(part, 0.0) for t in rounds) for part in parts}


def _inputs(image: np.ndarray, resize: T.Augmentation) -> dict:
    height, width = image.shape[:2]
    resized = resize.get_transform(image).apply_image(image)
    tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    return {"image": tensor, "height": height, "width": width}


def _methods(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Parts: a name, a module, the method. None of them calls another."""
    yield "normalise", model, "preprocess_image"
    yield "backbone", model.backbone, "forward"
    if hasattr(model, "head"):
        yield "head", model.head, "forward"
        yield "inference", model, "forward_inference"
        return
    if hasattr(model, "sem_seg_head"):
        yield "semantic head", model.sem_seg_head, "forward"
    proposals, heads = model.proposal_generator, model.roi_heads
    yield "RPN head", proposals.rpn_head, "forward"
    yield "proposals", proposals, "predict_proposals"
    for part in ("box", "mask", "keypoint"):
        if hasattr(heads, f"{part}_pooler"):
            yield f"{part} pooling", getattr(heads, f"{part}_pooler"), "forward"
        head = getattr(heads, f"{part}_head", None)
        for stage in head if isinstance(head, nn.ModuleList) else [head]:
            if stage is not None:
                yield f"{part} head", stage, "forward" if part == "box" else "layers"
    predictors = heads.box_predictor
    for predictor in predictors if isinstance(predictors, nn.ModuleList) else [predictors]:
        yield "box predictor", predictor, "forward"
        yield "box inference", predictor, "inference"


class _Clock:
    """Adds up milliseconds by name; of calls within calls, the outer one's count."""

    def __init__(self):
        self.times: dict[str, float] = {}
        self.inside: str | None = None

    def wait(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def timed(self, part: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            if self.inside:
                return function(*args, **kwargs)
            self.inside, start = part, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.wait()
                self.inside = None
                milliseconds = 1000 * (time.perf_counter() - start)
                self.times[part] = self.times.get(part, 0.0) + milliseconds

        return call

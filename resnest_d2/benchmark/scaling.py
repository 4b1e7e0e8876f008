"""How time grows with one quantity at a time: points timed in turn, an exponent fitted."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ..errors import check_choice
from .costs import count_multiply_adds
from .distributed import ProcessTimes
from .latency import alternate
from .subjects import Subject

_VARIED = {
    "radix": {radix: f"resnest50_fast_{radix}s1x64d" for radix in (1, 2, 4)},
    "cardinality": {
        1: "resnest50_fast_1s1x64d",
        2: "resnest50_fast_1s2x40d",
        4: "resnest50_fast_1s4x24d",
    },
    "depth": {depth: f"resnest{depth}" for depth in (14, 26, 50, 101, 200, 269)},
}

QUANTITIES = {
    "pixels": "ResNeSt-50, pixels of a square image",
    "batch": "ResNeSt-50, images of 224 x 224",
    "radix": "fast ResNeSt-50, cardinality 1, width 64, 224 x 224",
    "cardinality": "fast ResNeSt-50, radix 1, widths 64, 40, 24, 224 x 224",
    "depth": "ResNeSt-14 to 269 by layers, 224 x 224",
    "proposals": "Faster R-CNN, ROI heads alone, inference, 480 x 640",
}
"""What is varied, and in which network."""

_Point = tuple[int, Callable[[], object], int | None]  # value, call, multiply-adds


@dataclass(frozen=True)
class Scaling:
    """Cost over one quantity.

    Attributes:
        quantity: what is varied.
        what: of which network.
        values: of the quantity, ascending.
        latency_ms: by value, one time per run; run i of all values is from the same round.
        multiply_adds: by value, of the forward pass; None where not counted.
    """

    quantity: str
    what: str
    values: tuple[int, ...]
    latency_ms: tuple[tuple[float, ...], ...]
    multiply_adds: tuple[int | None, ...]

    @property
    def medians_ms(self) -> tuple[float, ...]:
        return tuple(statistics.median(runs) for runs in self.latency_ms)

    @property
    def exponents(self) -> tuple[float, ...]:
        """p of time ~ value ** p, by least squares of the logarithms, per round."""
        return tuple(_exponent(self.values, times) for times in zip(*self.latency_ms, strict=True))

    @property
    def exponent(self) -> float:
        return statistics.median(self.exponents)

    @property
    def multiply_adds_exponent(self) -> float | None:
        return None if None in self.multiply_adds else _exponent(self.values, self.multiply_adds)


def measure_scaling(
    quantity: str,
    *,
    training: bool = False,
    device: str = "cpu",
    runs: int = 5,
    warmup: int = 1,
) -> Scaling:
    """Measure how time grows with one of :data:`QUANTITIES`.

    Args:
        training: training steps of two images, instead of inference of one (except for ``batch``,
            and for ``proposals``, which is always inference).
        runs, warmup: timed and untimed runs of each point.

    Raises:
        ValueError: an unknown quantity.
    """
    check_choice("a quantity", quantity, QUANTITIES)
    if quantity == "proposals":
        points = _proposals(device)
    else:
        points = _networks(quantity, training=training, device=device)
    values, calls, multiply_adds = zip(*points, strict=True)
    times = alternate(calls, runs=runs, warmup=warmup, doing=quantity)
    return Scaling(quantity, QUANTITIES[quantity], values, tuple(times), multiply_adds)


def scaling_of_processes(times: ProcessTimes) -> Scaling:
    """The step of one process alone, and of all of them together."""
    return Scaling(
        quantity="processes",
        what="ResNeSt-50, training step, the same images for each",
        values=(1, times.processes),
        latency_ms=(times.alone_ms, times.synchronised_ms),
        multiply_adds=(None, None),
    )


def _networks(quantity: str, **setup) -> Iterator[_Point]:
    least = 2 if setup["training"] else 1  # in training, batch norm needs two values
    if quantity == "pixels":
        points = {side**2: ("resnest50", least, side) for side in (128, 192, 256, 384, 512, 768)}
    elif quantity == "batch":
        points = {batch: ("resnest50", batch, 224) for batch in (1, 2, 4, 8) if batch >= least}
    else:
        points = {value: (name, least, 224) for value, name in _VARIED[quantity].items()}
    networks = {}
    for value, (name, batch, side) in points.items():
        subject = Subject(name, **setup)
        if name not in networks:
            network = subject.build()
            networks[name] = network, subject.prepare(network)
        network, prepared = networks[name]
        inputs = subject.inputs(batch, (side, side))
        with torch.no_grad():
            multiply_adds = count_multiply_adds(network, inputs)
        yield value, partial(prepared.call, inputs), multiply_adds


def _proposals(device: str) -> Iterator[_Point]:
    subject = Subject("faster_rcnn_resnest50_fpn", device=device)
    model = subject.build()
    with torch.inference_mode():
        images = model.preprocess_image(subject.inputs(1, (480, 640)))
        features = model.backbone(images.tensor)
        (proposals,), _ = model.proposal_generator(images, features)

    def call(chosen):
        with torch.inference_mode():
            return model.roi_heads(images, features, [chosen])

    for number in (125, 250, 500, 1000):
        yield number, partial(call, proposals[:number]), None


def _exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])

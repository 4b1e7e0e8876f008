"""Networks measured side by side: counts, latency in turn, memory, time by part."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from detectron2.modeling import GeneralizedRCNN, RetinaNet

from ..errors import check_choice
from ..progress import progress_bar
from .costs import count_multiply_adds, count_params
from .latency import alternate
from .part_times import part_times
from .peak_memory import peak_memory, saved_memory
from .subjects import Subject


@dataclass(frozen=True)
class Measurement:
    """Cost of one network for one batch.

    Attributes:
        name, params: of the network before its settings, see :class:`.Subject`.
        multiply_adds: of a forward pass of the batch; None for a detector, where it varies.
        latency_ms: one time per run; run i of all networks is from the same round.
        ratios: the baseline's time over this one's, per run: above 1 this one is faster.
        peak: memory that a call takes beyond what is in use before it, bytes; None where unknown.
        saved: bytes kept for the backward pass; None in inference.
        parts_ms: of a config in inference, median time by part, from the file to the result.
    """

    name: str
    params: int
    multiply_adds: int | None
    latency_ms: tuple[float, ...]
    ratios: tuple[float, ...]
    peak: int | None = None
    saved: int | None = None
    parts_ms: dict[str, float] = field(default_factory=dict)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.latency_ms)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def measure(
    specs: Sequence[str],
    *,
    size: tuple[int, int] = (224, 224),
    batch: int = 1,
    training: bool = False,
    classifier: bool = False,
    device: str = "cpu",
    runs: int = 10,
    warmup: int = 2,
    reference: str | None = None,
) -> list[Measurement]:
    """Measure networks in one process, in turn.

    Args:
        specs: see :class:`.Subject`.
        size: height and width of the images, pixels.
        training: forward and backward pass, instead of inference.
        classifier: with 1000 classes, instead of feature maps.
        runs, warmup: timed and untimed runs of each; with 0 runs nothing is timed.
        reference: baseline for the ratios, one of ``specs``; by default the last.

    Raises:
        ValueError: see :class:`.Subject`; the same name twice, an unknown reference.
        ModuleNotFoundError: a source's package is not installed.
    """
    reference = specs[-1] if reference is None else reference
    check_choice("the reference", reference, specs)
    if len(set(specs)) != len(specs):
        raise ValueError(f"each network is measured once, got {', '.join(specs)}")
    if min(size) < 32 or batch < 1 or runs < 0:
        raise ValueError(
            "images must have at least 32 pixels a side, and a batch at least one image; runs must "
            f"not be negative: got {size}, {batch}, {runs}"
        )
    subjects = [
        Subject(spec, training=training, classifier=classifier, device=device) for spec in specs
    ]
    calls, untimed = [], []
    for subject in progress_bar(subjects, desc="building and counting"):
        network = subject.build()
        inputs = subject.inputs(batch, size)
        found: dict[str, Any] = {"params": count_params(network), "multiply_adds": None}
        if not isinstance(network, (GeneralizedRCNN, RetinaNet)):
            with torch.inference_mode():
                found["multiply_adds"] = count_multiply_adds(network, inputs)
        prepared = subject.prepare(network)
        call = partial(prepared.call, inputs)
        if runs:
            call()  # compiles what is to be compiled
            if training:
                found["saved"] = saved_memory(network, partial(prepared.forward, inputs))
            elif subject.is_config:
                found["parts_ms"] = part_times(
                    prepared.network, prepared.call, size, runs=-(-runs // 2)
                )
            found["peak"] = peak_memory(call, device)
        calls.append(call)
        untimed.append(found)
    timed = time_against(reference, specs, calls, runs=runs, warmup=warmup)
    return [Measurement(**times, **found) for times, found in zip(timed, untimed, strict=True)]


def time_against(
    reference: str,
    names: Iterable[str],
    calls: Sequence[Callable[[], object]],
    *,
    runs: int,
    warmup: int = 2,
) -> list[dict[str, Any]]:
    """Time calls in turn: ``name``, ``latency_ms`` and ``ratios`` of each :class:`Measurement`."""
    times = alternate(calls, runs=runs, warmup=min(runs, warmup), doing="timing")
    by_name = dict(zip(names, times, strict=True))
    return [
        {
            "name": name,
            "latency_ms": own,
            "ratios": tuple(b / a for a, b in zip(own, by_name[reference], strict=True)),
        }
        for name, own in by_name.items()
    ]

"""Cost of networks measured side by side: latency in turn, memory, parts of a detector."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from ..progress import progress_bar
from .costs import count_multiply_adds, count_params
from .latency import alternate
from .part_times import part_times
from .peak_memory import peak_memory, saved_memory
from .subjects import Subject

__all__ = ["Measurement", "measure"]


@dataclass(frozen=True)
class Measurement:
    """Cost of one network for one batch.

    Attributes:
        name: as it was asked for, see :class:`.Subject`.
        params: parameters before any setting.
        multiply_adds: of a forward pass of the batch; None of a whole detector, where it depends on
            what is found.
        latency_ms: each timed run; run i of all networks are neighbours in time.
        ratios: of each run, the reference's time over this one's: above 1 this one is faster.
        peak: memory that a call takes beyond what is held before, bytes; None where unknown.
        saved: bytes kept for the backward pass; None in inference.
        parts_ms: of a detector in inference, median time by part, from the file to the result.
    """

    name: str
    params: int
    multiply_adds: int | None
    latency_ms: tuple[float, ...]
    ratios: tuple[float, ...]
    peak: int | None
    saved: int | None
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
        runs, warmup: timed and untimed runs of each; 0 runs count without timing.
        reference: whose time the ratios are of; one of ``specs``, by default the last.

    Raises:
        ValueError: see :class:`.Subject`; the same name twice, no such reference.
        ModuleNotFoundError: a source's package is missing.
    """
    reference = specs[-1] if reference is None else reference
    if len(set(specs)) != len(specs):
        raise ValueError(f"each network is measured once, got {', '.join(specs)}")
    if reference not in specs:
        raise ValueError(f"the reference must be one of {', '.join(specs)}, got {reference!r}")
    if min(size) < 32 or batch < 1 or runs < 0:
        raise ValueError(
            f"images have at least 32 pixels a side, a batch at least one, and there are no "
            f"negative runs: got {size}, {batch}, {runs}"
        )
    subjects = [
        Subject(spec, training=training, classifier=classifier, device=device) for spec in specs
    ]
    calls, untimed = [], []
    for subject in progress_bar(subjects, desc="building and counting"):
        network = subject.build()
        inputs = subject.inputs(batch, size)
        found = dict.fromkeys(("multiply_adds", "peak", "saved"))
        found["params"] = count_params(network)
        if not subject.is_detector:
            with torch.inference_mode():
                found["multiply_adds"] = count_multiply_adds(network, inputs)
        prepared = subject.prepare(network)
        call = partial(prepared.call, inputs)
        if runs:
            call()  # what is compiled is compiled now
            if training:
                found["saved"] = saved_memory(network, partial(prepared.forward, inputs))
            elif subject.is_detector:
                found["parts_ms"] = part_times(
                    prepared.network, prepared.call, size, runs=-(-runs // 2)
                )
            found["peak"] = peak_memory(call, device)
        calls.append(call)
        untimed.append(found)
    times = alternate(calls, runs=runs, warmup=min(runs, warmup), doing="timing")
    base = times[specs.index(reference)]
    return [
        Measurement(
            name=spec,
            latency_ms=own,
            ratios=tuple(b / a for a, b in zip(own, base, strict=True)),
            **found,
        )
        for spec, own, found in zip(specs, times, untimed, strict=True)
    ]

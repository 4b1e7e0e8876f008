"""Latency of a callable; of one against another, so that a noisy machine cannot decide."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["LatencyComparison", "compare_latency", "measure_latency"]


@dataclass(frozen=True)
class LatencyComparison:
    """Times of two callables, measured in turn.

    Attributes:
        ours_ms, reference_ms: each run's time in milliseconds, in order; run i of both are
            neighbours in time.
    """

    ours_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Reference's time over ours, pair by pair: above 1 ours is faster."""
        return tuple(b / a for a, b in zip(self.ours_ms, self.reference_ms, strict=True))

    @property
    def ratio(self) -> float:
        """Median of :attr:`ratios`."""
        return statistics.median(self.ratios)


def compare_latency(
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    runs: int = 10,
    warmup: int = 2,
) -> LatencyComparison:
    """Time two callables in turn: A B, B A, A B, …

    Both meet the same load of the machine, and neither always runs on the other's caches. Work
    that a callable leaves on a GPU is waited for.

    Args:
        runs: timed runs of each.
        warmup: untimed runs of each, before.
    """
    times: dict[Callable, list[float]] = {ours: [], reference: []}
    for run in range(-warmup, runs):
        for call in (ours, reference) if run % 2 else (reference, ours):
            milliseconds = _time(call)
            if run >= 0:
                times[call].append(milliseconds)
    return LatencyComparison(tuple(times[ours]), tuple(times[reference]))


def measure_latency(
    call: Callable[[], object], *, runs: int = 10, warmup: int = 2
) -> tuple[float, ...]:
    """Times of ``runs`` calls after ``warmup`` untimed ones, milliseconds, in order."""
    return tuple(_time(call) for _ in range(warmup + runs))[warmup:]


def _time(call: Callable[[], object]) -> float:
    """Milliseconds of one call, with the work that it leaves on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)

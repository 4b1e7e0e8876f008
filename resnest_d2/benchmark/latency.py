"""Latency of a callable; of one against another, so that a noisy machine cannot decide."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..progress import progress_bar

__all__ = ["LatencyComparison", "alternate", "compare_latency", "measure_latency"]


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
    return LatencyComparison(*alternate((ours, reference), runs=runs, warmup=warmup))


def alternate(
    calls: Sequence[Callable[[], object]],
    *,
    runs: int = 10,
    warmup: int = 2,
    doing: str = "",
) -> list[tuple[float, ...]]:
    """Times of several callables in turn, each round in another order than the last.

    Args:
        doing: what a progress bar says, between the runs; empty: there is none.

    Returns:
        For each, its times in milliseconds; entry i of all are of one round.
    """
    times = [[] for _ in calls]
    hidden = {} if doing else {"disable": True}
    with progress_bar(total=(runs + warmup) * len(calls), desc=doing, **hidden) as bar:
        for run in range(-warmup, runs):
            turn = list(enumerate(calls))
            turn = turn[run % len(turn) :] + turn[: run % len(turn)]
            for number, call in turn:
                milliseconds = _time(call)
                if run >= 0:
                    times[number].append(milliseconds)
                bar.update()
    return [tuple(own) for own in times]


def measure_latency(
    call: Callable[[], object], *, runs: int = 10, warmup: int = 2
) -> tuple[float, ...]:
    """Times of ``runs`` calls after ``warmup`` untimed ones, milliseconds, in order."""
    return tuple(_time(call) for _ in range(warmup + runs))[warmup:]


def _time(call: Callable[[], object]) -> float:
    """Milliseconds of one call, with the work that it leaves on a GPU."""
    if not torch.cuda.is_available():
        start = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - start)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)

"""Latency of one callable, or of several that are timed in turn.

Callables timed in turn all meet the same load of the machine, so their ratio is reliable also on a
busy one.
"""

import time
from collections.abc import Callable, Sequence

import torch

from ..progress import progress_bar


def alternate(
    calls: Sequence[Callable[[], object]], *, runs: int = 10, warmup: int = 2, doing: str = ""
) -> list[tuple[float, ...]]:
    """Time several callables in turn; each round begins with another one, because of the caches.

    Args:
        runs, warmup: timed rounds, after untimed ones.
        doing: text of a progress bar, which moves between the runs; without a text there is none.

    Returns:
        Milliseconds of each callable, including work that it left on a GPU; entry i of all is from
        the same round.
    """
    times = [[] for _ in calls]
    hidden = {} if doing else {"disable": True}
    with progress_bar(total=(runs + warmup) * len(calls), desc=doing, **hidden) as bar:
        for run in range(-warmup, runs):
            for place in range(len(calls)):
                number = (place + run) % len(calls)
                milliseconds = _time(calls[number])
                if run >= 0:
                    times[number].append(milliseconds)
                bar.update()
    return [tuple(own) for own in times]


def measure_latency(
    call: Callable[[], object], *, runs: int = 10, warmup: int = 2
) -> tuple[float, ...]:
    """Milliseconds of ``runs`` calls after ``warmup`` untimed ones, in order."""
    return alternate([call], runs=runs, warmup=warmup)[0]


def _time(call: Callable[[], object]) -> float:
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

"""Random numbers as a function of a seed and a number.

Detectron2's augmentations draw from ``numpy.random``, some from ``random`` and ``torch``, and its
models from ``torch``: all of them global generators, whose state depends on everything that drew
before. Seeded before each example and before each iteration, they give the same numbers in any
process, so a run can continue from any position.
"""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

# What the numbers count. The same number means other random numbers in each.
EXAMPLE, ITERATION = 0, 1


def seed_generators(seed: int, purpose: int, number: int) -> None:
    """Seed ``random``, ``numpy.random`` and PyTorch's CPU generator.

    Args:
        seed: of the run, at least 0.
        purpose: ``EXAMPLE`` or ``ITERATION``.
        number: below 2³²; no two of a seed and purpose give any generator the same state.
    """
    words = np.random.SeedSequence(seed, spawn_key=(purpose, number)).generate_state(6)
    np.random.seed(words[:4])
    random.seed(int(words[4]) << 32 | int(words[5]))
    # PyTorch's CPU generator keeps 32 bits of a seed. Hashed to so few, some of a run's millions of
    # numbers would meet; counted from a hashed start, none does.
    start = np.random.SeedSequence(seed, spawn_key=(purpose,)).generate_state(1)
    torch.default_generator.manual_seed((int(start[0]) + number) % 2**32)


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Restore the three generators afterwards."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=()):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])

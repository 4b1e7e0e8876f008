"""Memory of a call: its peak, and what is kept for the backward pass."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


def peak_memory(call: Callable[[], object], device: str) -> int | None:
    """The most memory, in bytes, that a call takes beyond what is in use before it.

    On a GPU it is that of PyTorch's allocator. On a CPU it is the process's resident memory; None
    where the system is not Linux.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    own = Path("/proc/self")
    if not own.exists():
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's: returns freed memory
    if trim:
        trim(0)
    try:
        (own / "clear_refs").write_text("5")  # resets VmHWM, the peak: see proc(5)
    except OSError:
        return None
    before = int((own / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    call()
    for line in (own / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return max(0, int(line.split()[1]) * 1024 - before)
    return None


def saved_memory(model: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes that a forward pass of a model keeps for the backward pass."""
    from ..engine.diagnosis.memory_estimate import SavedTensors  # imports the trainer

    counter = SavedTensors(model)
    with counter.counting():
        outputs = forward()
    assert outputs is not None  # the graph has to live while it is counted
    return counter.bytes

"""Memory of a call: its peak, and what autograd keeps for the backward pass."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

__all__ = ["peak_memory", "saved_memory"]


def peak_memory(call: Callable[[], object], device: str) -> int | None:
    """Bytes that a call takes beyond what is held before it, at most.

    On a GPU of PyTorch's allocator; on a CPU of the process's resident set, on Linux (None
    elsewhere), after what was freed before has gone back to the system, where libc can do that.
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
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
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
    """Bytes that a forward pass keeps for the backward pass: unique storages, no parameters."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = forward()
    assert outputs is not None  # the graph has to live while it is counted
    return sum(storage.nbytes() for storage in kept.values())

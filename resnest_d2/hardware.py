"""Name and features of the processors of this machine."""

import functools
import platform
import time
from pathlib import Path
from typing import NamedTuple

import torch


class CPU(NamedTuple):
    """Name and features of the first processor, as Linux lists them on x86."""

    name: str
    flags: frozenset[str]


def cpu_info() -> CPU:
    """The processor of this machine; no features without ``/proc/cpuinfo``."""
    found = {"model name": platform.processor() or platform.machine(), "flags": ""}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            if name.strip() in found:
                found[name.strip()] = value.strip()
    return CPU(found["model name"], frozenset(found["flags"].split()))


@functools.cache
def has_fast_bfloat16(device_type: str) -> bool:
    """Whether convolutions are faster in bfloat16 than in float32 on this machine.

    True for NVIDIA GPUs from compute capability 8.0, and for x86 with AMX. Some of the other
    processors with bfloat16 instructions (AVX512-BF16) are faster and some are slower, so a
    convolution is timed once per process, which takes some milliseconds.
    """
    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    flags = cpu_info().flags if device_type == "cpu" else frozenset()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and _gains_by_bfloat16())


def _gains_by_bfloat16() -> bool:
    calls = {}
    for dtype in (torch.float32, torch.bfloat16):
        layer = torch.nn.Conv2d(128, 128, 3, padding=1).to(dtype, memory_format=torch.channels_last)
        x = torch.ones(1, 128, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
        calls[dtype] = (layer.requires_grad_(False), x)
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(10):
        for dtype, (layer, x) in calls.items():
            start = time.perf_counter()
            layer(x)
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] > 1.3 * best[torch.bfloat16]

"""What a measured figure depends on: hardware and versions."""

import platform
from pathlib import Path

import torch
import torchvision

import detectron2

from ..version import __version__

__all__ = ["describe_environment"]


def describe_environment() -> dict[str, str]:
    """Hardware and versions to record beside a figure."""
    features = {"model name": platform.processor() or platform.machine(), "flags": ""}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in features:
                features[name.strip()] = value.strip()
    described = {
        "CPU": features["model name"],
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "AMX": "yes" if "amx_tile" in features["flags"].split() else "no",
        "threads": str(torch.get_num_threads()),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "detectron2": detectron2.__version__,
        "resnest_d2": __version__,
    }
    if torch.cuda.is_available():
        described["GPU"] = torch.cuda.get_device_name()
    return described

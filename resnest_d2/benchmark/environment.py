"""What a measured figure depends on: hardware and versions."""

import platform

import torch
import torchvision

import detectron2

from ..hardware import cpu_info
from ..version import __version__


def describe_environment() -> dict[str, str]:
    """Hardware and versions to record beside a figure."""
    cpu = cpu_info()
    described = {
        "CPU": cpu.name,
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "AMX": "yes" if "amx_tile" in cpu.flags else "no",
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

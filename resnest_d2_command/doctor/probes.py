"""Imports and small computations that the doctor runs in a child process, step by step.

Each step prints a line of JSON before it starts and one when it is done, so that the parent knows
which step crashed or hangs. A step that needs a failed one is not tried, because it would fail for
the same reason.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

_STEPS: dict[str, tuple[Callable[[], dict | None], tuple[str, ...]]] = {}


def _step(name: str, *needs: str) -> Callable:
    """Decorates a step; ``needs`` are other steps, also ``import NAME`` of any module."""

    def add(function: Callable) -> Callable:
        _STEPS[name] = function, needs
        return function

    return add


@_step("torch")
def _torch() -> dict:
    import torch

    return {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}


@_step("convolution", "torch")
def _convolution() -> dict:
    import torch

    image, weight = torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3, requires_grad=True)
    torch.nn.functional.conv2d(image, weight).sum().backward()
    cpu = torch.backends.cpu.get_cpu_capability()
    return {"capability": cpu, "threads": torch.get_num_threads()}


@_step("devices", "torch")
def _devices() -> dict:
    import torch

    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):  # a build without kernels for this GPU fails here
            image, weight = (torch.ones(4, 3, 8, 8, device="cuda") for _ in range(2))
            torch.nn.functional.conv2d(image, weight).sum().item()
            bf16 = torch.cuda.is_bf16_supported()
        gpus.append({"name": properties.name, "bytes": properties.total_memory, "bf16": bf16})
    nccl = torch.cuda.nccl.version() if gpus and torch.distributed.is_nccl_available() else None
    return {
        "gpus": gpus,
        "nccl": ".".join(map(str, nccl)) if isinstance(nccl, tuple) else nccl,
        "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
        "mps": torch.backends.mps.is_available(),
    }


@_step("numpy", "torch", "import numpy")
def _numpy() -> None:
    import numpy
    import torch

    # A PyTorch built for numpy 1 can be imported beside numpy 2, but cannot exchange arrays.
    torch.from_numpy(numpy.ones(2)).numpy()


@_step("torchvision", "torch", "import numpy")
def _torchvision() -> dict:
    import torchvision

    return {"version": torchvision.__version__}


@_step("operators", "torchvision")
def _operators() -> dict:
    import torch
    from torchvision import ops

    image, box = torch.ones(1, 2, 8, 8), torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    offset, weight = torch.zeros(1, 18, 6, 6), torch.ones(2, 2, 3, 3)
    calls = {
        "nms": lambda: ops.nms(box, torch.ones(1), 0.5),
        "roi_align": lambda: ops.roi_align(image, [box], 2),
        "deform_conv2d": lambda: ops.deform_conv2d(image, offset, weight),
    }
    errors = []
    for name, call in calls.items():
        try:
            call()
        except Exception as error:
            errors.append(f"{name}: {_text(error)}")
    if errors:
        raise RuntimeError("; ".join(errors))
    return {"ran": [*calls]}


@_step("detectron2 files")
def _detectron2_files() -> dict:
    """Where Detectron2 is, without importing it."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None:
        raise ModuleNotFoundError("No module named 'detectron2'", name="detectron2")
    folder = Path(next(iter(spec.submodule_search_locations)))
    defaults = folder / "config" / "defaults.py"
    return {
        "folder": str(folder),
        "package": spec.origin is not None,  # any folder of that name imports as a namespace
        "fork": defaults.is_file() and "RESNETS.RADIX" in defaults.read_text("utf-8"),
    }


@_step("detectron2", "torch", "torchvision", "detectron2 files")
def _detectron2() -> dict:
    # The modules that resnest_d2 imports; the package itself imports nearly nothing.
    import detectron2.data
    import detectron2.engine
    import detectron2.export.torchscript
    import detectron2.utils.visualizer  # noqa: F401

    return {"version": detectron2.__version__}


@_step("detectron2._C", "torch", "detectron2 files")
def _compiled() -> None:
    import torch  # noqa: F401  (its libraries first)

    from detectron2 import _C  # noqa: F401


@_step("detectron2.model_zoo", "detectron2", "import pkg_resources")
def _model_zoo() -> None:
    from detectron2 import model_zoo

    model_zoo.get_config_file("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")


@_step("resnest_d2", "detectron2")
def _resnest_d2() -> dict:
    import resnest_d2

    return {"folder": os.path.dirname(resnest_d2.__file__)}


@_step("weights", "resnest_d2")
def _weights() -> dict:
    from resnest_d2.model_zoo import WEIGHTS
    from resnest_d2.model_zoo.download import find

    found = {}
    for name in WEIGHTS:
        with contextlib.suppress(ValueError):  # several files match
            if find(name):
                found[name] = find(name).stat().st_size
    return {"here": sorted(found), "bytes": sum(found.values()), "published": len(WEIGHTS)}


@_step("training step", "resnest_d2", "numpy", "convolution", "operators")
def _training_step() -> None:
    import torch

    from resnest_d2 import ResNeSt

    torch.manual_seed(0)
    model = ResNeSt.from_variant("resnest14", num_classes=2, out_features=("linear",))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    logits = model(torch.rand(2, 3, 64, 64))["linear"]  # (2, 2)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    loss.backward()
    optimizer.step()
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        raise RuntimeError(f"weights are not finite after one step (loss {loss.item()})")


def main(steps: list[str], failed: dict[str, str]) -> None:
    """Run the steps, except those that need a failed one.

    Args:
        failed: steps that failed before, with the step that caused it (itself or another).
    """
    # Whatever an imported library prints goes to stderr: stdout has only the lines of JSON.
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    failed = dict(failed)
    for step in steps:
        function, needs = _STEPS.get(step, (None, ()))
        cause = next((failed[name] for name in needs if name in failed), None)
        if cause:
            failed[step], line = cause, {"needs": cause}
        else:
            print(json.dumps({"step": step}), file=report, flush=True)
            try:
                if function is None:
                    importlib.import_module(step.removeprefix("import "))
                line = {"facts": (function and function()) or {}}
            except BaseException as error:  # a library may raise SystemExit
                failed[step], line = step, {"error": _text(error)}
        print(json.dumps({"step": step, **line}), file=report, flush=True)
    report.close()
    sys.stderr.flush()
    os._exit(0)  # some libraries crash when Python shuts down


def _text(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

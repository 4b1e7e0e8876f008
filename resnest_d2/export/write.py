"""Writes parts of a model as TorchScript, ONNX, or programs of torch.export.

TorchScript and ONNX trace an example image. Sizes and numbers of boxes stay variable, because
Detectron2's code and ours keep them as tensors. Only Python's ``len`` would make the number of
proposals a constant: Detectron2's ``patch_builtin_len`` prevents that. Each file stores metadata as
one JSON text named :data:`.run_file.METADATA`.
"""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import torch
from torch import nn

from ..modeling.deform_conv import DeformConv2d
from .parts import Detector
from .run_file import METADATA

SUFFIXES = {"torchscript": ".pt", "onnx": ".onnx", "torch-export": ".pt2"}
FORMATS = tuple(SUFFIXES)

# PyTorch's newer exporter cannot export the heads, whose control flow depends on the data.
_TRACING = {"dynamo": False} if "dynamo" in signature(torch.onnx.export).parameters else {}
_OPSET = 17
_OPSET_DEFORMABLE = 19  # the first with DeformConv


def write_part(
    part: nn.Module,
    image: torch.Tensor,
    file: str | os.PathLike,
    *,
    format: str,
    metadata: dict[str, Any],
) -> None:
    """Write a part to a file.

    Args:
        part: from :func:`.parts.build_part`.
        image: the example, RGB (3, H, W), float32, 0-255. A detector must find something in it.
        format: one of :data:`FORMATS`.

    Raises:
        ValueError: the format cannot hold the part.
        ModuleNotFoundError: ONNX needs the package ``onnx``.
    """
    # Imported here, because the import changes Detectron2's classes for scripting.
    from detectron2.export.torchscript_patch import patch_builtin_len

    with torch.no_grad(), _quiet(), patch_builtin_len():
        _WRITERS[format](part, image, os.fspath(file), json.dumps(metadata, ensure_ascii=False))


def _write_torchscript(part: nn.Module, image: torch.Tensor, file: str, metadata: str) -> None:
    traced = torch.jit.trace(part, (image,), check_trace=False)
    torch.jit.save(traced, file, _extra_files={METADATA: metadata})


def _write_onnx(part: nn.Module, image: torch.Tensor, file: str, metadata: str) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401  (the file is verified with it)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "export to ONNX needs onnx and onnxruntime: pip install 'resnest-d2[export]'"
        ) from error
    deformable = any(isinstance(module, DeformConv2d) for module in part.modules())
    opset = _OPSET_DEFORMABLE if deformable else _OPSET
    try:
        with _deform_conv_symbolic() if deformable else contextlib.nullcontext():
            torch.onnx.export(
                part,
                (image,),
                file,
                **_TRACING,
                opset_version=opset,
                input_names=["image"],
                output_names=part.output_names,
                dynamic_axes={"image": {1: "height", 2: "width"}, **part.dynamic_axes},
            )
        model = onnx.load(file)
        onnx.checker.check_model(model)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"PyTorch {torch.__version__} writes no valid file of ONNX's opset {opset}: {reason}"
        ) from error
    onnx.helper.set_model_props(model, {METADATA: metadata})
    onnx.save(model, file)


def _write_program(part: nn.Module, image: torch.Tensor, file: str, metadata: str) -> None:
    if isinstance(part, Detector):
        raise ValueError(
            "torch-export holds no detector whose number of boxes depends on the image: export a "
            'RetinaNet, which goes without non-maximum suppression, or the part "backbone"'
        )
    any_size = getattr(torch.export.Dim, "DYNAMIC", None)
    if any_size is None:
        raise ValueError(f"torch-export needs PyTorch 2.6 or newer, this is {torch.__version__}")
    program = torch.export.export(
        part,
        (image,),
        dynamic_shapes={"image": {1: any_size, 2: any_size}},
        # Conditions that do not hold for all sizes are checked when the program runs.
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    torch.export.save(program, file, extra_files={METADATA: metadata})


_WRITERS: dict[str, Callable] = {
    "torchscript": _write_torchscript,
    "onnx": _write_onnx,
    "torch-export": _write_program,
}


@contextlib.contextmanager
def _deform_conv_symbolic() -> Iterator[None]:
    """Export torchvision's operator as ONNX's DeformConv, which has the same layout of offsets."""
    from torch.onnx import symbolic_helper

    def symbolic(graph, x, weight, offset, mask, bias, *numbers):
        numbers = [symbolic_helper._parse_arg(number, "i") for number in numbers]
        stride, padding, dilation = numbers[:2], numbers[2:4], numbers[4:6]
        groups, offset_groups, use_mask = numbers[6:]
        return graph.op(
            "DeformConv",
            *(x, weight, offset, bias, *([mask] if use_mask else [])),
            strides_i=stride,
            pads_i=padding * 2,
            dilations_i=dilation,
            group_i=groups,
            offset_group_i=offset_groups,
        )

    name = "torchvision::deform_conv2d"
    torch.onnx.register_custom_op_symbolic(name, symbolic, _OPSET_DEFORMABLE)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(name, _OPSET_DEFORMABLE)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings of tracing about constants: verification finds those that matter."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

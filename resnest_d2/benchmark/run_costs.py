"""What the detectors of runs cost, by their configs: size, arithmetic, latency, memory.

A detector is built with random weights and a score threshold of 0, so that each one finds as many
objects as its config allows, and the heads of all have as much to do. What a trained one finds, and
so how long it takes, depends on the picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model

from ..config import merge_opts
from ..progress import progress_bar
from .costs import count_multiply_adds, count_params
from .latency import alternate
from .measure import Measurement
from .peak_memory import peak_memory
from .subjects import detector_options

__all__ = ["RunCost", "measure_runs"]

_WARMUP = 2  # untimed rounds


@dataclass(frozen=True, kw_only=True)
class RunCost(Measurement):
    """Cost of a run's detector for one picture.

    ``params``, ``latency_ms``, ``ratios`` and ``peak`` are of the whole detector, from the
    picture's tensor to its objects; ``multiply_adds`` are those of the backbone without its FPN.

    Attributes:
        backbone_params: parameters of the backbone without its FPN.
        size: height and width of the picture as the network gets it, pixels, before padding.
    """

    backbone_params: int
    size: tuple[int, int]


def measure_runs(
    configs: Mapping[str, CfgNode],
    *,
    picture: tuple[int, int] = (480, 640),
    device: str = "cpu",
    runs: int = 10,
    reference: str | None = None,
) -> dict[str, RunCost]:
    """Measure the detectors of configs in one process, in turn.

    Args:
        configs: by the names that the result has. They are not changed.
        picture: height and width of the picture, pixels; each config resizes it as its
            ``INPUT.MIN_SIZE_TEST`` and ``INPUT.MAX_SIZE_TEST`` say.
        runs: timed runs of each; 0 runs count without timing.
        reference: whose time the ratios are of, one of the names; by default the first. A ratio
            above 1 is faster than it.

    Raises:
        ValueError: no such reference, or an argument is out of range.
    """
    reference = next(iter(configs)) if reference is None else reference
    if reference not in configs:
        raise ValueError(f"the reference must be one of {', '.join(configs)}, got {reference!r}")
    if min(picture) < 1 or runs < 0:
        raise ValueError(
            f"a picture has at least one pixel, and there are no negative runs: got {picture}, "
            f"{runs}"
        )
    found: dict[str, dict[str, Any]] = {}
    calls = []
    for name, config in progress_bar(configs.items(), desc="building and counting"):
        model = _build(config, device)
        inputs = _inputs(config, picture)
        found[name] = _count(model, inputs)
        call = partial(_detect, model, [inputs])
        if runs:
            call()  # the first takes memory that all share
            found[name]["peak"] = peak_memory(call, device)
        calls.append(call)
    times = alternate(calls, runs=runs, warmup=min(runs, _WARMUP), doing="timing")
    base = times[list(configs).index(reference)]
    return {
        name: RunCost(
            name=name,
            latency_ms=own,
            ratios=tuple(b / a for a, b in zip(own, base, strict=True)),
            saved=None,
            **found[name],
        )
        for name, own in zip(configs, times, strict=True)
    }


def _build(config: CfgNode, device: str) -> nn.Module:
    config = config.clone()
    config.defrost()
    # Frozen norms would have buffers in place of parameters, and the counts would be smaller.
    merge_opts(config, [*detector_options(device), "MODEL.BACKBONE.FREEZE_AT", "0"])
    return build_model(config).eval()


def _inputs(config: CfgNode, picture: tuple[int, int]) -> dict[str, Any]:
    """A picture of noise as Detectron2's models take one."""
    height, width = picture
    size = picture
    if config.INPUT.MIN_SIZE_TEST:
        size = ResizeShortestEdge.get_output_shape(
            height, width, config.INPUT.MIN_SIZE_TEST, config.INPUT.MAX_SIZE_TEST
        )
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    return {"image": image, "height": height, "width": width}


def _count(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    bottom_up = getattr(model.backbone, "bottom_up", model.backbone)
    with torch.inference_mode():
        multiply_adds = count_multiply_adds(bottom_up, model.preprocess_image([inputs]).tensor)
    return {
        "params": count_params(model),
        "backbone_params": count_params(bottom_up),
        "multiply_adds": multiply_adds,
        "size": tuple(inputs["image"].shape[1:]),
        "peak": None,
    }


def _detect(model: nn.Module, inputs: list[dict[str, Any]]) -> object:
    with torch.inference_mode():
        return model(inputs)

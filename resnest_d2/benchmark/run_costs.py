"""What the models of runs cost, by their configs: size, multiply-adds, latency, memory.

Models are built with random weights. Detectors have a score threshold of 0, so each has as many
detections as its config allows. The latency of a trained detector depends on how many it has in an
image.
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
from ..errors import check_choice
from ..modeling.forward_parts import network_input
from ..progress import progress_bar
from .costs import count_multiply_adds, count_params
from .measure import Measurement, time_against
from .peak_memory import peak_memory
from .subjects import detector_options, random_input


@dataclass(frozen=True, kw_only=True)
class RunCost(Measurement):
    """Cost of a run's model for one image.

    ``params``, ``latency_ms``, ``ratios`` and ``peak`` are of the whole model, from the image's
    tensor to the results; ``multiply_adds`` are of the backbone without its FPN.

    Attributes:
        backbone_params: parameters of the backbone without its FPN.
        size: height and width of the resized image, pixels, before padding.
    """

    backbone_params: int
    size: tuple[int, int]


def measure_runs(
    configs: Mapping[str, CfgNode],
    *,
    image_size: tuple[int, int] = (480, 640),
    device: str = "cpu",
    runs: int = 10,
    reference: str | None = None,
) -> dict[str, RunCost]:
    """Measure the models of configs in one process, in turn.

    Args:
        configs: by the names that the result has. They are not changed.
        image_size: height and width of the image, pixels; each config resizes it by its
            ``INPUT.MIN_SIZE_TEST`` and ``INPUT.MAX_SIZE_TEST``, or crops it for a classifier.
        runs: timed runs of each; with 0 runs nothing is timed.
        reference: baseline for the ratios, one of the names; by default the first.

    Raises:
        ValueError: an unknown reference, or an argument is out of range.
    """
    reference = next(iter(configs)) if reference is None else reference
    check_choice("the reference", reference, configs)
    if min(image_size) < 1 or runs < 0:
        raise ValueError(
            f"image_size must be positive, and runs must not be negative: got {image_size}, {runs}"
        )
    calls, untimed = [], []
    for config in progress_bar(configs.values(), desc="building and counting"):
        model = _build(config, device)
        size = image_size
        if config.MODEL.META_ARCHITECTURE == "ImageClassifier":
            size = (config.RESNEST.CLASSIFIER.TEST_SIZE,) * 2
        elif config.INPUT.MIN_SIZE_TEST:
            limits = config.INPUT.MIN_SIZE_TEST, config.INPUT.MAX_SIZE_TEST
            size = ResizeShortestEdge.get_output_shape(*image_size, *limits)
        inputs = random_input(size, image_size)
        found: dict[str, Any] = {"size": tuple(size), "params": count_params(model)}
        bottom_up = getattr(model.backbone, "bottom_up", model.backbone)
        found["backbone_params"] = count_params(bottom_up)
        call = partial(_run, model, [inputs])
        with torch.inference_mode():
            image = network_input(model, inputs).tensor
            found["multiply_adds"] = count_multiply_adds(bottom_up, image)
        if runs:
            call()  # the first call takes memory that later ones use again
            found["peak"] = peak_memory(call, device)
        calls.append(call)
        untimed.append(found)
    timed = time_against(reference, configs, calls, runs=runs)
    costs = [RunCost(**times, **found) for times, found in zip(timed, untimed, strict=True)]
    return {cost.name: cost for cost in costs}


def _build(config: CfgNode, device: str) -> nn.Module:
    config = config.clone()
    config.defrost()
    # Norms of frozen stages have buffers instead of parameters, which would not be counted.
    merge_opts(config, [*detector_options(device), "MODEL.BACKBONE.FREEZE_AT", "0"])
    return build_model(config).eval()


def _run(model: nn.Module, inputs: list[dict[str, Any]]) -> object:
    with torch.inference_mode():
        return model(inputs)

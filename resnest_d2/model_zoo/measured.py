"""Costs that this project measured: ``measured.json``, written by ``tools/measure_zoo.py``.

Counts (parameters, multiply-adds) and latency are two sections, each with its command, hardware,
versions and date.
"""

import json
from dataclasses import dataclass
from pathlib import Path

MEASURED: dict = json.loads(Path(__file__).with_name("measured.json").read_text(encoding="utf-8"))
"""The file: ``counts`` and ``latency``, which is None where not yet measured."""


@dataclass(frozen=True)
class Measured:
    """What a network costs.

    Attributes:
        params: parameters of the whole model, without FrozenBN's constants.
        multiply_adds: of one image through the backbone (a detector) or the network (a
            classifier), convolutions and linear layers.
        latency_ms: of the same on the CPU, milliseconds; None where not yet measured.
        image_size: height and width of that image in pixels.
        commands: what measured it.
    """

    params: int
    multiply_adds: int
    latency_ms: float | None
    image_size: tuple[int, int]
    commands: tuple[str, ...]


def measured_model(name: str, backbone: str) -> Measured | None:
    """Cost of a detector and its backbone; None where it was not measured."""
    counts = MEASURED["counts"]
    if name not in counts["models"] or backbone not in counts["backbones"]:
        return None
    multiply_adds = counts["backbones"][backbone]["multiply_adds"]
    latency = (MEASURED["latency"] or {}).get("backbones", {}).get(backbone)
    params, size = counts["models"][name]["params"], tuple(counts["image_size"])
    return Measured(params, multiply_adds, latency, size, _COMMANDS)


def measured_classifier(name: str, size: int) -> Measured | None:
    """Cost of a classifier for an image of ``size`` x ``size`` pixels; latency at 224 only."""
    counts = MEASURED["counts"]["classifiers"].get(name, {"multiply_adds": {}})
    multiply_adds = counts["multiply_adds"].get(str(size))
    latency = (MEASURED["latency"] or {}).get("classifiers", {}).get(name)
    if multiply_adds is None:
        return None
    latency = latency if size == 224 else None
    return Measured(counts["params"], multiply_adds, latency, (size, size), _COMMANDS)


_COMMANDS = tuple(MEASURED[key]["command"] for key in ("counts", "latency") if MEASURED[key])

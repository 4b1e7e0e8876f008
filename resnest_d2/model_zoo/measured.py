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
        multiply_adds: of one image through the network, convolutions and linear layers.
        latency_ms: of the same on the CPU, milliseconds; None where not yet measured.
        image_size: height and width of that image in pixels.
        whole: whether both are of the whole network; of a detector they are of the backbone.
        commands: what measured it.
    """

    params: int
    multiply_adds: int
    latency_ms: float | None
    image_size: tuple[int, int]
    whole: bool
    commands: tuple[str, ...]


def measured_model(name: str, backbone: str) -> Measured | None:
    """Cost of a model: of all of it where it was measured as a whole, else of its backbone; None
    where it was not measured.
    """
    counts, latency = MEASURED["counts"], MEASURED["latency"] or {}
    own = counts["models"].get(name)
    if own and "multiply_adds" in own:
        kind, key = "models", name
    elif own and backbone in counts["backbones"]:
        kind, key = "backbones", backbone
    else:
        return None
    counted = counts[kind][key]
    size = tuple(counted.get("image_size", counts["image_size"]))
    milliseconds = latency.get(kind, {}).get(key)
    return Measured(
        params=own["params"],
        multiply_adds=counted["multiply_adds"],
        latency_ms=milliseconds,
        image_size=size,
        whole=kind == "models",
        commands=_COMMANDS,
    )


def measured_classifier(name: str, size: int) -> Measured | None:
    """Cost of a classifier for an image of ``size`` x ``size`` pixels; latency at 224 only."""
    counts = MEASURED["counts"]["classifiers"].get(name, {"multiply_adds": {}})
    multiply_adds = counts["multiply_adds"].get(str(size))
    latency = (MEASURED["latency"] or {}).get("classifiers", {}).get(name)
    if multiply_adds is None:
        return None
    return Measured(
        params=counts["params"],
        multiply_adds=multiply_adds,
        latency_ms=latency if size == 224 else None,
        image_size=(size, size),
        whole=True,
        commands=_COMMANDS,
    )


_COMMANDS = tuple(MEASURED[key]["command"] for key in ("counts", "latency") if MEASURED[key])

"""What ``compare`` and ``report`` share: runs that were evaluated, their cost, their record."""

import argparse
import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import error_text
from .common import REFUSALS, data_pairs

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..analysis.evaluated_run import EvaluatedRun
    from ..benchmark import RunCost

__all__ = ["cost_record", "measure_costs", "plain_values", "read_runs"]


def read_runs(path: str, args: argparse.Namespace) -> list["EvaluatedRun"]:
    """The runs of a folder, a folder of such folders, or a pattern.

    Raises:
        FileNotFoundError, ValueError: there is none, one cannot be read, or one of the two options
            is missing.
    """
    from ..analysis.evaluated_run import find_runs, read_evaluated_run

    data = next(iter(data_pairs(args, "val")), None)
    return [read_evaluated_run(folder, data=data) for folder in find_runs(path)]


def measure_costs(
    configs: Mapping[str, "CfgNode"],
    picture: tuple[int, int],
    args: argparse.Namespace,
    *,
    advice: str,
) -> dict[str, "RunCost"]:
    """Measure on ``--device``.

    Args:
        configs: by the names that the result has.
        picture: height and width, pixels.
        advice: how to do without.

    Raises:
        ValueError: it cannot be measured.
    """
    import torch

    from ..benchmark import measure_runs

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return measure_runs(configs, picture=picture, device=device)
    except (*REFUSALS, RuntimeError) as error:
        text = f"the cost cannot be measured: {error_text(error)} ({advice})"
        raise ValueError(text) from error


def cost_record(cost: "RunCost") -> dict[str, Any]:
    """Without what is not measured of runs."""
    values = dataclasses.asdict(cost)
    for key in ("name", "saved", "parts_ms"):
        del values[key]
    return {**values, "median_ms": cost.median_ms, "ratio": cost.ratio}


def plain_values(value: Any) -> Any:
    """For JSON: a number that does not exist is null, a path is its name."""
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if isinstance(value, str) and os.path.isabs(value):
        return Path(value).name
    return None if isinstance(value, float) and math.isnan(value) else value

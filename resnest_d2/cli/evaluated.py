"""What ``compare`` and ``report`` share: reading evaluated runs, measuring their cost."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import error_text
from .common import REFUSALS, data_pairs

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..analysis.run_folder import EvaluatedRun
    from ..benchmark import RunCost


def read_runs(path: str, args: argparse.Namespace) -> list["EvaluatedRun"]:
    """The runs of a folder, a folder of such folders, or a pattern."""
    from ..analysis.evaluated_run import find_runs, read_evaluated_run

    data = next(iter(data_pairs(args, "val")), None)
    return [read_evaluated_run(folder, data=data) for folder in find_runs(path)]


def measure_costs(
    configs: Mapping[str, "CfgNode"],
    image_size: tuple[int, int],
    args: argparse.Namespace,
    *,
    advice: str,
) -> dict[str, "RunCost"]:
    """Measure configs, by name, on ``--device``, for an image of this height and width.

    Raises:
        ValueError: they cannot be measured; ``advice`` says how to leave it out.
    """
    import torch

    from ..benchmark import measure_runs

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return measure_runs(configs, image_size=image_size, device=device)
    except (*REFUSALS, RuntimeError) as error:
        text = f"the cost cannot be measured: {error_text(error)} ({advice})"
        raise ValueError(text) from error


def cost_record(cost: "RunCost") -> dict[str, Any]:
    """For JSON, without what is not measured for runs."""
    values = dataclasses.asdict(cost)
    for key in ("name", "saved", "parts_ms"):
        del values[key]
    return {**values, "median_ms": cost.median_ms, "ratio": cost.ratio}

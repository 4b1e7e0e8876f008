"""Metrics as JSON and as a Markdown table."""

import json
import math
import os
from typing import Any

import numpy as np

from ..files import write_text
from ..text import text_table

_TASKS = {"bbox": "boxes", "segm": "masks"}
_COLUMNS = {"AP": "AP", "AP50": "AP50", "AP75": "AP75"}
_COLUMNS |= {"APs": "AP small", "APm": "AP medium", "APl": "AP large"}


def ap_table(results: dict[str, dict[str, float]]) -> str:
    """COCO metrics by task, 0-100, as Markdown; "–" for a missing number.

    Args:
        results: ``{"bbox": {"AP": …}, "segm": {…}}`` as evaluation returns it. COCO's small objects
            are below 32 x 32 pixels, its medium ones up to 96 x 96.
    """

    def text(value) -> str:
        return "–" if value is None or math.isnan(value) else f"{value:.1f}"

    rows = [
        [_TASKS.get(task, task), *(text(metrics.get(column)) for column in _COLUMNS)]
        for task, metrics in results.items()
    ]
    return text_table(rows, ["", *_COLUMNS.values()])


def write_results(results: dict, path: str | os.PathLike) -> None:
    """Write :func:`results_json` to a file, which appears only when it is complete."""
    write_text(path, results_json(results) + "\n")


def results_json(results: dict) -> str:
    """Metrics as JSON: ``{"bbox": {"AP": …}, "panoptic_seg": {"PQ": …}, …}``, on 0-100.

    A number that does not exist (AP of small objects where there are none) becomes ``null``.
    """
    return json.dumps(plain_values(results), indent=2)


def plain_values(value: Any) -> Any:
    """Nested dicts and lists for strict JSON: a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value

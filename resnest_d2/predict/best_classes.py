"""A table of classified images: the most likely classes of each."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import writing
from .results import csv_bytes

__all__ = ["best_classes", "write_best_classes"]

_BEST = 5
_COLUMNS = ("file_name", "rank", "class_number", "class", "probability")


def best_classes(probabilities: torch.Tensor) -> dict[str, list]:
    """The numbers and probabilities of the most likely classes, for a record in JSON."""
    best = probabilities.topk(min(_BEST, len(probabilities)))
    return {"classes": best.indices.tolist(), "probabilities": best.values.tolist()}


def write_best_classes(
    folder: Path, records: Iterable[dict[str, Any]], class_names: Sequence[str]
) -> None:
    """Write ``predictions.csv``, image by image.

    Args:
        records: images with ``name`` and the values of :func:`best_classes`.
    """
    with writing(folder / "predictions.csv") as table:
        table.write(csv_bytes([_COLUMNS]))
        for record in records:
            found = zip(record["classes"], record["probabilities"], strict=True)
            table.write(
                csv_bytes(
                    (record["name"], rank, number, class_names[number], f"{probability:.6f}")
                    for rank, (number, probability) in enumerate(found, 1)
                )
            )

"""A table of predicted label maps: which classes each image has, and their areas."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import writing
from .results import csv_bytes

__all__ = ["count_classes", "write_class_table"]

_COLUMNS = ("file_name", "label_map", "class_number", "class", "pixels", "share")


def count_classes(labels: np.ndarray) -> dict[str, int]:
    """Pixels of each class in a label map, by class number as a text, as in JSON."""
    numbers, counts = np.unique(labels, return_counts=True)
    return dict(zip(map(str, numbers.tolist()), counts.tolist(), strict=True))


def write_class_table(
    folder: Path, records: Iterable[dict[str, Any]], class_names: Sequence[str]
) -> None:
    """Write ``predictions.csv``, image by image.

    Args:
        records: images with ``name``, ``label_map``, ``width``, ``height`` and ``pixels``.
    """
    with writing(folder / "predictions.csv") as table:
        table.write(csv_bytes([_COLUMNS]))
        for record in records:
            area = record["width"] * record["height"]
            table.write(
                csv_bytes(
                    (
                        record["name"],
                        record["label_map"],
                        label,
                        class_names[int(label)],
                        count,
                        f"{count / area:.6f}",
                    )
                    for label, count in record["pixels"].items()
                )
            )

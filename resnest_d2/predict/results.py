"""Predictions as files that other programs read: COCO's JSON formats, and CSV.

``images.json`` is a COCO data set without annotations, ``predictions.json`` COCO results on it:
``COCO("images.json").loadRes("predictions.json")`` reads both. Predictions are written image by
image, so that memory does not grow with their number.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..files import writing

__all__ = ["csv_bytes", "write_failed", "write_results"]

_COLUMNS = ("file_name", "image_id", "category_id", "class", "score", "x", "y", "width", "height")


def write_results(
    folder: Path,
    records: Iterable[dict[str, Any]],
    *,
    class_names: Sequence[str],
    category_ids: Sequence[int],
    info: dict[str, Any],
) -> int:
    """Write ``predictions.json``, ``images.json`` and ``predictions.csv``.

    Args:
        records: images with ``name``, ``width``, ``height``, ``note`` and ``instances`` (COCO
            results with class numbers as category ids). Images are numbered from 1.
        class_names, category_ids: by class number.
        info: for ``images.json``.

    Returns:
        The number of instances.
    """
    images, number = [], 0
    with (
        writing(folder / "predictions.json") as results,
        writing(folder / "predictions.csv") as table,
    ):
        table.write(csv_bytes([_COLUMNS]))
        for image_id, record in enumerate(records, 1):
            image = {"id": image_id, "file_name": record["name"]}
            image |= {key: record[key] for key in ("width", "height", "note") if record[key]}
            images.append(image)
            rows = []
            for instance in record["instances"]:
                label = instance["category_id"]
                instance |= {"image_id": image_id, "category_id": category_ids[label]}
                results.write(b",\n" if number else b"[\n")
                results.write(json.dumps(instance).encode())
                number += 1
                known = (record["name"], image_id, category_ids[label], class_names[label])
                rows.append((*known, instance["score"], *instance["bbox"]))
            table.write(csv_bytes(rows))
        results.write(b"\n]\n" if number else b"[]\n")
    with writing(folder / "images.json") as file:
        categories = [
            {"id": category_id, "name": name}
            for category_id, name in zip(category_ids, class_names, strict=True)
        ]
        dataset = {"info": info, "images": images, "categories": categories, "annotations": []}
        file.write(json.dumps(dataset, indent=1).encode())
    return number


def write_failed(folder: Path, failed: dict[str, str]) -> None:
    """Write ``failed.csv`` with file names and reasons, or remove it if nothing failed."""
    file = folder / "failed.csv"
    if not failed:
        file.unlink(missing_ok=True)
        return
    with writing(file) as table:
        table.write(csv_bytes([("file_name", "reason"), *failed.items()]))


def csv_bytes(rows: Iterable[Sequence]) -> bytes:
    """Rows of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")  # file names may be any bytes

"""What a COCO file holds, in numbers that help to choose a recipe."""

import os
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from ..progress import progress_bar
from ..text import printable
from .formats.coco import read_sound_coco

__all__ = ["ClassStats", "CocoStats", "coco_stats", "stats_table"]

_SMALL, _LARGE = 32**2, 96**2  # pixels of area: COCO's bounds
_BINS = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # lowest objects per image of each bin


@dataclass(frozen=True)
class ClassStats:
    """A category's objects.

    Attributes:
        id, name: of the category.
        images: images that show it.
        objects: annotations that are no crowds.
        crowds: annotations that are.
        small, medium, large: objects by area (of the box, where the file has none): below 32²,
            below 96², above, in pixels.
    """

    id: int
    name: str
    images: int
    objects: int
    crowds: int
    small: int
    medium: int
    large: int


@dataclass(frozen=True)
class CocoStats:
    """A file's numbers.

    Attributes:
        images, annotations: how many.
        empty_images: images without an annotation.
        crowds, masks, keypoints: annotations that are crowds, have a segmentation, have keypoints.
        classes: by category, in the order of the ids.
        objects_per_image: images by number of objects, e.g. ``{"0": 3, "5-9": 120}``.
        image_sizes: least, median and greatest width and height, pixels.
        box_sides: 10th, 50th and 90th percentile of sqrt(width · height), pixels.
        box_ratios: the same of height / width.
    """

    images: int
    annotations: int
    empty_images: int
    crowds: int
    masks: int
    keypoints: int
    classes: tuple[ClassStats, ...]
    objects_per_image: dict[str, int]
    image_sizes: dict[str, list[int]]
    box_sides: list[float]
    box_ratios: list[float]


def coco_stats(json_file: str | os.PathLike, *, on_bad_data: str = "refuse") -> CocoStats:
    """Count what a file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not sound.
    """
    data = read_sound_coco(json_file, on_bad_data=on_bad_data)
    categories = sorted(data["categories"], key=lambda category: category["id"])
    counts = {category["id"]: Counter() for category in categories}
    shows = defaultdict(set)  # image ids by category id
    per_image = Counter({image["id"]: 0 for image in data["images"]})
    whole = []  # boxes with a width and a height
    for annotation in progress_bar(data["annotations"], desc="counting annotations"):
        category = counts[annotation["category_id"]]
        shows[annotation["category_id"]].add(annotation["image_id"])
        if annotation.get("iscrowd", 0) == 1:
            category["crowds"] += 1
            continue
        per_image[annotation["image_id"]] += 1
        category["objects"] += 1
        width, height = _sides(annotation["bbox"])
        if width > 0 and height > 0:
            whole.append((width, height))
        area = annotation.get("area", width * height)
        area = area if isinstance(area, (int, float)) else width * height
        category["small" if area < _SMALL else "medium" if area < _LARGE else "large"] += 1
    fields = ("objects", "crowds", "small", "medium", "large")
    classes = tuple(
        ClassStats(
            id=category["id"],
            name=category["name"],
            images=len(shows[category["id"]]),
            **{field: counts[category["id"]][field] for field in fields},
        )
        for category in categories
    )
    annotated = {annotation["image_id"] for annotation in data["annotations"]}
    boxes = np.array(whole, dtype=np.float64).reshape(-1, 2)
    return CocoStats(
        images=len(data["images"]),
        annotations=len(data["annotations"]),
        empty_images=len(data["images"]) - len(annotated),
        crowds=sum(c.crowds for c in classes),
        masks=sum(bool(a.get("segmentation")) for a in data["annotations"]),
        keypoints=sum(bool(a.get("keypoints")) for a in data["annotations"]),
        classes=classes,
        objects_per_image=_histogram(per_image.values()),
        image_sizes={side: _range(data["images"], side) for side in ("width", "height")},
        box_sides=_percentiles(np.sqrt(boxes.prod(axis=1))),
        box_ratios=_percentiles(boxes[:, 1] / boxes[:, 0]),
    )


def _sides(box: object) -> tuple[float, float]:
    """A box's width and height; 0 where it is none, which is not for statistics to refuse."""
    if isinstance(box, list) and len(box) == 4 and np.isfinite(sides := _numbers(box[2:])).all():
        return tuple(sides)
    return 0.0, 0.0


def _numbers(values: list) -> list[float]:
    return [float(v) if type(v) in (int, float) else float("nan") for v in values]


def _histogram(counts) -> dict[str, int]:
    ends = (*(low - 1 for low in _BINS[1:]), None)
    found = {}
    for low, high in zip(_BINS, ends, strict=True):
        label = f"{low}+" if high is None else str(low) if high == low else f"{low}-{high}"
        number = sum(low <= count and (high is None or count <= high) for count in counts)
        if number:
            found[label] = number
    return found


def _range(images: list[dict], side: str) -> list[int]:
    sides = sorted(image[side] for image in images if type(image[side]) is int)
    return [sides[0], sides[len(sides) // 2], sides[-1]] if sides else []


def _percentiles(values: np.ndarray) -> list[float]:
    return np.percentile(values, (10, 50, 90)).round(2).tolist() if values.size else []


def stats_table(stats: CocoStats) -> str:
    """The numbers as text for a terminal."""

    def three(values: list) -> str:
        return " / ".join(f"{value:g}" for value in values) or "–"

    facts = [
        ("images", f"{stats.images}, {stats.empty_images} of them without an annotation"),
        (
            "annotations",
            f"{stats.annotations}, {stats.crowds} of them crowds (iscrowd 1: neither trained nor "
            "scored)",
        ),
        ("with masks", stats.masks),
        ("with keypoints", stats.keypoints),
        ("width, pixels", f"{three(stats.image_sizes['width'])} (least, median, greatest)"),
        ("height, pixels", f"{three(stats.image_sizes['height'])} (least, median, greatest)"),
        ("side of boxes, pixels", f"{three(stats.box_sides)} (10th, 50th, 90th percentile)"),
        ("height / width of boxes", f"{three(stats.box_ratios)} (10th, 50th, 90th percentile)"),
    ]
    most = max(stats.objects_per_image.values())
    bars = [
        (label, number, "#" * max(1, round(30 * number / most)))
        for label, number in stats.objects_per_image.items()
    ]
    rows = [
        (c.id, printable(c.name), c.images, c.objects, c.crowds, c.small, c.medium, c.large)
        for c in stats.classes
    ]
    headers = ["id", "class", "images", "objects", "crowds", "small", "medium", "large"]
    return "\n\n".join(
        [
            tabulate(facts, tablefmt="plain", disable_numparse=True),
            tabulate(
                bars,
                ["objects in an image", "images", ""],
                colalign=("right", "right", "left"),
                disable_numparse=True,
            ),
            tabulate(rows, headers, disable_numparse=[1]),
            "small: area below 32 x 32 pixels, medium: below 96 x 96, large: above",
        ]
    )

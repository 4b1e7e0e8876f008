"""What a data set holds, in numbers that help to choose a recipe.

For COCO files, label maps and class folders.
"""

import os
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from ..progress import progress_bar
from ..text import printable
from .check.normalise import is_finite_list
from .folders.class_folders import usable_class_folders
from .folders.label_maps import LabelMaps, usable_label_maps
from .formats.coco import read_sound_coco

_SMALL, _LARGE = 32**2, 96**2  # pixels of area: COCO's bounds
_BINS = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # lowest objects per image of each bin


@dataclass(frozen=True)
class ClassStats:
    """A category's objects.

    Attributes:
        images: images that show it.
        objects: annotations that are no crowds.
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
        FileNotFoundError: the file does not exist.
        ValueError: the file is not sound.
    """
    data = read_sound_coco(json_file, on_bad_data=on_bad_data)
    images, annotations = data["images"], data["annotations"]
    counts: dict[int, Counter] = defaultdict(Counter)  # by category id
    shows: dict[int, set] = defaultdict(set)  # image ids by category id
    per_image = Counter({image["id"]: 0 for image in images})
    whole = []  # boxes with a width and a height
    for annotation in progress_bar(annotations, desc="counting annotations"):
        category = annotation["category_id"]
        shows[category].add(annotation["image_id"])
        if annotation.get("iscrowd", 0) == 1:
            counts[category]["crowds"] += 1
            continue
        per_image[annotation["image_id"]] += 1
        box = annotation.get("bbox")
        width, height = box[2:] if is_finite_list(box) and len(box) == 4 else (0, 0)
        if width > 0 and height > 0:
            whole.append((width, height))
        area = annotation.get("area", width * height)
        size = "small" if area < _SMALL else "medium" if area < _LARGE else "large"
        counts[category].update(("objects", size))
    fields = ("objects", "crowds", "small", "medium", "large")
    classes = tuple(
        ClassStats(
            c["id"], c["name"], len(shows[c["id"]]), *map(counts[c["id"]].__getitem__, fields)
        )
        for c in sorted(data["categories"], key=lambda category: category["id"])
    )
    boxes = np.array(whole, dtype=np.float64).reshape(-1, 2)
    return CocoStats(
        images=len(images),
        annotations=len(annotations),
        empty_images=len(images) - len(set().union(*shows.values())),
        crowds=sum(c.crowds for c in classes),
        masks=sum(bool(a.get("segmentation")) for a in annotations),
        keypoints=sum(bool(a.get("keypoints")) for a in annotations),
        classes=classes,
        objects_per_image=_histogram(per_image.values()),
        image_sizes={side: _range(images, side) for side in ("width", "height")},
        box_sides=_percentiles(np.sqrt(boxes.prod(axis=1))),
        box_ratios=_percentiles(boxes[:, 1] / boxes[:, 0]),
    )


def _histogram(counts: Iterable[int]) -> dict[str, int]:
    bins = Counter(bisect_right(_BINS, count) - 1 for count in counts)
    found = {}
    for place, low in enumerate(_BINS):
        high = _BINS[place + 1] - 1 if place + 1 < len(_BINS) else None
        label = f"{low}+" if high is None else str(low) if high == low else f"{low}-{high}"
        if bins[place]:
            found[label] = bins[place]
    return found


def _range(images: list[dict], side: str) -> list[int]:
    return _spread(image[side] for image in images if type(image[side]) is int)


def _spread(sides: Iterable[int]) -> list[int]:
    sides = sorted(sides)
    return [sides[0], sides[len(sides) // 2], sides[-1]] if sides else []


def _percentiles(values: np.ndarray) -> list[float]:
    return np.percentile(values, (10, 50, 90)).round(2).tolist() if values.size else []


@dataclass(frozen=True)
class LabelClassStats:
    """A class in label maps: images that have it, its pixels and their share of the labelled ones.

    The share is 0-1.
    """

    name: str
    images: int
    pixels: int
    share: float


@dataclass(frozen=True)
class LabelStats:
    """Numbers of a folder of label maps.

    Attributes:
        pixels, unlabelled: with and without a class.
        classes: by class number.
        image_sizes: least, median and greatest width and height, pixels.
    """

    images: int
    pixels: int
    unlabelled: int
    classes: tuple[LabelClassStats, ...]
    image_sizes: dict[str, list[int]]


def label_stats(
    label_root: str,
    image_root: str,
    class_names: Sequence[str],
    *,
    ignore_value: int = 255,
    on_bad_data: str = "refuse",
) -> LabelStats:
    """Count what label maps hold; raises as :func:`.usable_label_maps`."""
    found: LabelMaps = usable_label_maps(
        image_root, label_root, len(class_names), ignore_value, on_bad_data=on_bad_data
    )
    unlabelled = found.pixels[None]
    pixels = found.pixels.total() - unlabelled
    classes = tuple(
        LabelClassStats(
            name, found.images[number], found.pixels[number], found.pixels[number] / max(1, pixels)
        )
        for number, name in enumerate(class_names)
    )
    return LabelStats(len(found.pairs), pixels, unlabelled, classes, _image_sizes(found.sizes))


def label_stats_table(stats: LabelStats) -> str:
    """The numbers as a text for a terminal."""
    whole = stats.pixels + stats.unlabelled
    facts = [
        ("images", stats.images),
        ("pixels", f"{whole:,}, {stats.unlabelled / whole:.1%} of them without a class"),
        *_size_facts(stats.image_sizes),
    ]
    rows = [
        (number, printable(c.name), c.images, f"{c.pixels:,}", f"{c.share:.2%}")
        for number, c in enumerate(stats.classes)
    ]
    headers = ["number", "class", "images", "pixels", "share of the labelled pixels"]
    align = ("right", "left", "right", "right", "right")
    tables = [
        tabulate(facts, tablefmt="plain", disable_numparse=True),
        tabulate(rows, headers, colalign=align, disable_numparse=True),
    ]
    return "\n\n".join(tables)


@dataclass(frozen=True)
class ClassFolderStats:
    """Numbers of a folder of class folders.

    Attributes:
        classes: name and number of images of each class, by class number.
        image_sizes: least, median and greatest width and height, pixels.
    """

    images: int
    classes: tuple[tuple[str, int], ...]
    image_sizes: dict[str, list[int]]


def class_folder_stats(
    root: str, names: Mapping[str, str] | None = None, *, on_bad_data: str = "refuse"
) -> ClassFolderStats:
    """Count the images of each class; raises as :func:`.usable_class_folders`."""
    found = usable_class_folders(root, names, on_bad_data=on_bad_data)
    counts = Counter(number for _, number in found.images)
    classes = tuple((name, counts[number]) for number, name in enumerate(found.class_names))
    return ClassFolderStats(len(found.images), classes, _image_sizes(found.sizes))


def class_folder_stats_table(stats: ClassFolderStats) -> str:
    """The numbers as a text for a terminal."""
    facts = [("images", stats.images), *_size_facts(stats.image_sizes)]
    rows = [
        (number, printable(name), images, f"{images / stats.images:.2%}")
        for number, (name, images) in enumerate(stats.classes)
    ]
    align = ("right", "left", "right", "right")
    headers = ["number", "class", "images", "share of the images"]
    tables = [
        tabulate(facts, tablefmt="plain", disable_numparse=True),
        tabulate(rows, headers, colalign=align, disable_numparse=True),
    ]
    return "\n\n".join(tables)


def _image_sizes(sizes: Iterable[tuple[int, int]]) -> dict[str, list[int]]:
    widths, heights = zip(*sizes, strict=True)
    return {"width": _spread(widths), "height": _spread(heights)}


def _three(values: list) -> str:
    return " / ".join(f"{value:g}" for value in values) or "–"


def _size_facts(sizes: dict[str, list[int]]) -> list[tuple[str, str]]:
    return [
        (f"{side}, pixels", f"{_three(values)} (least, median, greatest)")
        for side, values in sizes.items()
    ]


def stats_table(stats: CocoStats) -> str:
    """The numbers as a text for a terminal."""
    facts = [
        ("images", f"{stats.images}, {stats.empty_images} of them without an annotation"),
        (
            "annotations",
            f"{stats.annotations}, {stats.crowds} of them crowds (iscrowd 1: neither trained nor "
            "scored)",
        ),
        ("with masks", stats.masks),
        ("with keypoints", stats.keypoints),
        *_size_facts(stats.image_sizes),
        ("side of boxes, pixels", f"{_three(stats.box_sides)} (10th, 50th, 90th percentile)"),
        ("height / width of boxes", f"{_three(stats.box_ratios)} (10th, 50th, 90th percentile)"),
    ]
    most = max(stats.objects_per_image.values())
    bars = [
        (label, number, "#" * max(1, round(30 * number / most)))
        for label, number in stats.objects_per_image.items()
    ]
    align = ("right", "right", "left")
    rows = [
        (c.id, printable(c.name), c.images, c.objects, c.crowds, c.small, c.medium, c.large)
        for c in stats.classes
    ]
    headers = ["id", "class", "images", "objects", "crowds", "small", "medium", "large"]
    tables = [
        tabulate(facts, tablefmt="plain", disable_numparse=True),
        tabulate(
            bars, ["objects in an image", "images", ""], colalign=align, disable_numparse=True
        ),
        tabulate(rows, headers, disable_numparse=[1]),
        "small: area below 32 x 32 pixels, medium: below 96 x 96, large: above",
    ]
    return "\n\n".join(tables)

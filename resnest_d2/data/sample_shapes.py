"""The embedded sample set: drawn shapes in COCO format, so that everything runs without a download.

Each image holds one to six flat shapes of five classes on a patterned ground. Form alone tells the
class: colour, pattern, size, turn and stretch (up to 4:3) are drawn independently of it. Objects
cover each other, and an annotation is what remains visible: one region or several, with or without
holes, hence stored as COCO's compressed run lengths (``INPUT.MASK_FORMAT: bitmask``). Every object
also has four keypoints, the corners of its turned bounding rectangle.

An image depends on its seed, split, number and size only: the bit generator is named, and every
pixel follows from its uniform numbers by exact or rounded arithmetic, so that all versions of numpy
draw the same.
"""

import json
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pycocotools.mask as mask_util
from iopath.common.file_io import get_cache_dir
from PIL import Image

from ..files import make_folder

logger = logging.getLogger(__name__)

VERSION = 1  # of the drawing: raise it with every change of a pixel or an annotation
SPLITS = ("train", "val")
KEYPOINTS = ("top_left", "top_right", "bottom_right", "bottom_left")

_MAX_OBJECTS = 6
_MIN_VISIBLE = 0.25  # of the object's pixels; one that is covered more is not drawn at all
_MIN_AREA = 24  # visible pixels
_SUPERSAMPLING = 4  # samples along each side of a pixel


# ---- Shapes: is the point (x, y) inside? x points right, y down, and the shape fills [-1, 1]² ----


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # The five lines of a pentagram lie 0.309 from its centre, one opposite to each tip. The centre
    # is on the inner side of all five, an arm of all but its own, everything else of at most three.
    x, y = 0.951 * x, 0.9045 * y - 0.0955  # fit the pentagram of radius 1 into the square
    tips = [math.radians(72 * k) for k in range(5)]
    return sum(x * math.sin(t) - y * math.cos(t) <= 0.309 for t in tips) >= 4


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda x, y: x * x + y * y <= 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 1,
    "triangle": lambda x, y: (abs(x) <= (y + 1) / 2) & (y <= 1),
    "star": _star,
    "ring": lambda x, y: (x * x + y * y <= 1) & (x * x + y * y >= 0.36),
}
CLASS_NAMES = tuple(SHAPES)
_ROUND = ("circle", "ring")  # never turned, as it could not be seen


def _cos_sin(angle: float) -> tuple[float, float]:
    """Rounded: maths libraries differ in the last bit, pixels must not."""
    return round(math.cos(angle), 9), round(math.sin(angle), 9)


def _place(
    rng: np.random.Generator, class_name: str, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """An object of random size and place.

    Returns:
        The fraction of each pixel that it covers, (image_size, image_size) in [0, 1], and the
        corners of its turned bounding rectangle in pixels, (4, 2), in the order of KEYPOINTS.
    """
    # Squaring favours small objects: at 160 pixels about half are COCO's small and few its large.
    half = (0.05 + 0.30 * rng.random() ** 2) * image_size
    stretch = 0.866 + 0.289 * rng.random()  # of one side, the other shrinks: 3:4 to 4:3
    # A large object may leave the image by less than a third of its half side.
    cx, cy = (0.7 * half + rng.random(2) * (image_size - 1.4 * half)).tolist()
    angle = 2 * math.pi * rng.random()
    if class_name in _ROUND:
        angle = 0.0
    half_width, half_height = half * stretch, half / stretch
    reach, (cos, sin) = math.hypot(half_width, half_height), _cos_sin(angle)

    def window(centre: float) -> tuple[slice, np.ndarray]:
        low = max(math.floor(centre - reach), 0)
        high = min(math.ceil(centre + reach), image_size)
        samples = (np.arange(low * _SUPERSAMPLING, high * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING
        return slice(low, high), samples - centre

    (columns, x), (rows, y) = window(cx), window(cy)
    x, y = x[None, :], y[:, None]
    inside = SHAPES[class_name]((x * cos + y * sin) / half_width, (y * cos - x * sin) / half_height)
    coverage = np.zeros((image_size, image_size))
    height, width = coverage[rows, columns].shape
    samples = inside.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING)
    coverage[rows, columns] = samples.mean(axis=(1, 3))

    x, y = np.array([-1, 1, 1, -1]) * half_width, np.array([-1, -1, 1, 1]) * half_height
    corners = np.stack([cx + x * cos - y * sin, cy + x * sin + y * cos], axis=1)
    # Named as they appear in the image (turned by -45° to 45°), so that a mirrored image has the
    # same names with left and right exchanged.
    return coverage, np.roll(corners, math.floor(angle / (math.pi / 2) + 0.5), axis=0)


# Patterns: how much of the second colour, in [0, 1], at (u, v), measured in periods.
_PATTERNS = (
    lambda u, v, rng: np.floor(u) % 2,  # stripes
    lambda u, v, rng: (np.floor(u) + np.floor(v)) % 2,  # checks
    lambda u, v, rng: ((u % 2 - 1) ** 2 + (v % 2 - 1) ** 2 < 0.4).astype(np.float64),  # dots
    lambda u, v, rng: abs(u / 6 % 2 - 1),  # gradient
    lambda u, v, rng: rng.random((32, 32))[  # tiles
        np.floor(u).astype(int) % 32, np.floor(v).astype(int) % 32
    ],
    lambda u, v, rng: rng.random(u.shape),  # noise
)


def _patterned(
    rng: np.random.Generator, colours: np.ndarray, period: float, image_size: int
) -> np.ndarray:
    """A whole image of two RGB colours (2, 3) in a random pattern, (size, size, 3) in [0, 1]."""
    x, y = np.arange(image_size)[None, :], np.arange(image_size)[:, None]
    cos, sin = _cos_sin(math.pi * rng.random())
    pattern = _PATTERNS[rng.integers(len(_PATTERNS))]
    share = pattern((x * cos + y * sin) / period, (y * cos - x * sin) / period, rng)[..., None]
    return (1 - share) * colours[0] + share * colours[1]


def _colour_pair(rng: np.random.Generator, used: list[np.ndarray], spread: float) -> np.ndarray:
    """Two related RGB colours (2, 3) that stand out from all pairs in ``used``."""
    candidates = rng.random((16, 3))
    colour = candidates[0]
    if used:
        distance = ((candidates[:, None] - np.concatenate(used)) ** 2).sum(axis=2).min(axis=1)
        colour = candidates[distance.argmax()]
    second = colour + spread * (2 * rng.random(3) - 1)
    return np.stack([colour, second.clip(0, 1)])


@dataclass(frozen=True)
class DrawnObject:
    """One object of an image.

    Attributes:
        class_name: one of CLASS_NAMES.
        mask: its visible pixels, bool (H, W).
        keypoints: (x, y, v) for each of KEYPOINTS in COCO's sense: pixel indices, v = 2 visible,
            1 covered by a nearer object, 0 outside of the image (x and y are then 0).
    """

    class_name: str
    mask: np.ndarray
    keypoints: tuple[tuple[int, int, int], ...]


def draw_image(
    *, seed: int, split: str, index: int, image_size: int
) -> tuple[np.ndarray, list[DrawnObject]]:
    """Draw image ``index`` of a split: RGB uint8 (H, W, 3) and its objects, nearest first."""
    entropy = np.random.SeedSequence([seed, SPLITS.index(split), index])
    rng = np.random.Generator(np.random.PCG64(entropy))
    size = image_size
    palette = [_colour_pair(rng, [], spread=0.2)]
    ground = _patterned(rng, palette[0], size * (0.04 + 0.12 * rng.random()), size)

    # From the nearest object to the ground: each one gets what the nearer ones left over.
    image, light = np.zeros((size, size, 3)), np.ones((size, size, 1))
    taken = np.zeros((size, size), dtype=bool)
    objects = []
    for _ in range(rng.integers(1, _MAX_OBJECTS + 1)):
        class_name = CLASS_NAMES[rng.integers(len(CLASS_NAMES))]
        coverage, corners = _place(rng, class_name, size)
        whole = coverage >= 0.5
        mask = whole & ~taken
        if mask.sum() < max(_MIN_VISIBLE * whole.sum(), _MIN_AREA):
            continue
        keypoints = tuple(
            (x, y, 1 if taken[y, x] else 2) if 0 <= x < size and 0 <= y < size else (0, 0, 0)
            for x, y in np.floor(corners).astype(int).tolist()
        )
        objects.append(DrawnObject(class_name, mask, keypoints))
        taken |= whole

        palette.append(_colour_pair(rng, palette, spread=0.35))
        surface = _patterned(rng, palette[-1], size * (0.02 + 0.03 * rng.random()), size)
        image += light * coverage[..., None] * surface
        light *= 1 - coverage[..., None]
    image += light * ground
    image += 0.05 * (rng.random(image.shape) - 0.5)  # a camera's grain
    return np.floor(image.clip(0, 1) * 255 + 0.5).astype(np.uint8), objects


def _annotation(drawn: DrawnObject) -> dict:
    rle = mask_util.encode(np.asfortranarray(drawn.mask, dtype=np.uint8))
    return {
        "category_id": CLASS_NAMES.index(drawn.class_name) + 1,
        "iscrowd": 0,
        "area": int(drawn.mask.sum()),
        "bbox": mask_util.toBbox(rle).astype(int).tolist(),
        "segmentation": {"size": list(drawn.mask.shape), "counts": rle["counts"].decode("ascii")},
        "keypoints": [value for keypoint in drawn.keypoints for value in keypoint],
        "num_keypoints": sum(v > 0 for _, _, v in drawn.keypoints),
    }


def _write_split(folder: str, split: str, *, image_size: int, num_images: int, seed: int) -> None:
    json_file, image_root = _split_paths(folder, split)
    os.makedirs(image_root)
    os.makedirs(os.path.dirname(json_file), exist_ok=True)
    content = {
        "info": {
            "description": f"resnest_d2 shapes, {split}",
            "version": str(VERSION),
            "seed": seed,
        },
        "images": [],
        "annotations": [],
        "categories": [
            {
                "id": category_id,
                "name": name,
                "supercategory": "shape",
                "keypoints": list(KEYPOINTS),
                "skeleton": [[1, 2], [2, 3], [3, 4], [4, 1]],
            }
            for category_id, name in enumerate(CLASS_NAMES, start=1)
        ],
    }
    annotations = content["annotations"]
    for image_id in range(1, num_images + 1):
        image, objects = draw_image(seed=seed, split=split, index=image_id, image_size=image_size)
        file_name = f"{image_id:06d}.png"
        Image.fromarray(image).save(os.path.join(image_root, file_name), compress_level=1)
        content["images"].append(
            {"id": image_id, "file_name": file_name, "height": image_size, "width": image_size}
        )
        for drawn in objects:
            ids = {"id": len(annotations) + 1, "image_id": image_id}
            annotations.append(ids | _annotation(drawn))
    with open(json_file, "w", encoding="utf-8") as f:
        json.dump(content, f)


def _split_paths(folder: str, split: str) -> tuple[str, str]:
    json_file = os.path.join(folder, "annotations", f"instances_{split}.json")
    return json_file, os.path.join(folder, split)


def sample_set(
    root: str | None = None,
    *,
    image_size: int = 160,
    train_images: int = 400,
    val_images: int = 100,
    seed: int = 0,
) -> dict[str, tuple[str, str]]:
    """The sample set's files, drawn on first use (a few seconds with the default sizes).

    Args:
        root: folder that holds the set's own folder; by default ``resnest_d2`` in the cache folder
            that Detectron2 uses (``$FVCORE_CACHE``, else ``~/.torch/iopath_cache``).
        image_size: height and width, pixels, at least 64.
        train_images, val_images: number of images in each split.
        seed: other seeds give other images.

    Returns:
        ``{"train": (json_file, image_root), "val": (json_file, image_root)}``
    """
    lowest = {"image_size": 64, "train_images": 1, "val_images": 1, "seed": 0}
    given = (image_size, train_images, val_images, seed)
    for (key, low), value in zip(lowest.items(), given, strict=True):
        if value < low:
            raise ValueError(f"{key} of the sample set must be at least {low}, got {value}")

    if root is None:
        root = os.path.join(get_cache_dir(), "resnest_d2")
    name = f"shapes-v{VERSION}-seed{seed}-{image_size}px-{train_images}-{val_images}"
    folder = os.path.join(root, name)

    def draw(unfinished: str) -> None:
        for split, num_images in zip(SPLITS, (train_images, val_images), strict=True):
            _write_split(unfinished, split, image_size=image_size, num_images=num_images, seed=seed)

    if make_folder(folder, draw):
        logger.info("Drew the sample set into %s", folder)
    return {split: _split_paths(folder, split) for split in SPLITS}

"""A small data set for classification: stripes of one colour a class, in folders."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")


def write_class_set(folder: Path, *, train: int = 8, val: int = 4, size: int = 40) -> dict:
    """Write images of ``size`` x 1.5 ``size`` pixels.

    Returns:
        The folders of the classes' folders of ``"train"`` and ``"val"``.
    """
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for channel, name in zip((2, 1, 0), CLASSES, strict=True):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 60, (size, size * 3 // 2, 3), dtype=np.uint8)
                pixels[:, random.integers(8) :: 3, channel] = 250
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return {split: str(folder / split) for split in ("train", "val")}

"""A small data set for semantic segmentation: drawn shapes and the ground."""

import json
import shutil
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from resnest_d2.data import sample_set

CLASSES = ("ground", "disc", "triangle", "square", "star", "ring")


def write_label_set(folder: Path, *, image_size: int = 64, train: int = 4, val: int = 2) -> dict:
    """Write images and label maps.

    Returns:
        (folder of label maps, image folder) of ``"train"`` and ``"val"``, and the file of the
        names of the ``"classes"``.
    """
    shapes = sample_set(
        folder / "shapes", image_size=image_size, train_images=train, val_images=val
    )
    found = {"classes": folder / "classes.txt"}
    found["classes"].write_text("\n".join(CLASSES), encoding="utf-8")
    for split in ("train", "val"):
        json_file, image_root = shapes[split]
        images, labels = folder / split / "images", folder / split / "labels"
        shutil.copytree(image_root, images)
        labels.mkdir(parents=True)
        content = json.loads(Path(json_file).read_text(encoding="utf-8"))
        for image in content["images"]:
            classes = np.zeros((image["height"], image["width"]), dtype=np.uint8)
            for annotation in content["annotations"]:
                if annotation["image_id"] == image["id"]:
                    mask = mask_util.decode(annotation["segmentation"])
                    classes[mask > 0] = annotation["category_id"]
            classes[:2] = 255  # not labelled
            Image.fromarray(classes).save(labels / image["file_name"])
        found[split] = (str(labels), str(images))
    return found

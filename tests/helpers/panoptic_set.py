"""A small panoptic data set: the sample set's shapes as things, on two kinds of ground.

The upper half of a picture is "wall", the lower half "floor", and its last columns are unlabelled.
The category ids have gaps, the segment ids fill all three colours, and the first object of every
picture with several is a crowd (in the panoptic file only).
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_util

from resnest_d2.data import sample_set

STUFF = {17: "wall", 9: "floor"}


def write_panoptic_set(root: Path, *, images: int = 3, image_size: int = 64) -> dict[str, str]:
    """Write it, and return the arguments of ``register_coco_panoptic``."""
    instances_json, image_root = sample_set(
        str(root), image_size=image_size, train_images=1, val_images=images
    )["val"]
    content = json.loads(Path(instances_json).read_text())
    folder = root / "panoptic"
    folder.mkdir()
    annotations = []
    for image in content["images"]:
        objects = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        ids = np.zeros((image_size, image_size), dtype=np.int64)
        ids[: image_size // 2], ids[image_size // 2 :] = 256**2 + 1, 256**2 + 2
        ids[:, -5:] = 0
        categories = {256**2 + 1: 17, 256**2 + 2: 9}
        for number, annotation in enumerate(objects, start=1):
            ids[mask_util.decode(annotation["segmentation"]).astype(bool)] = 300 * number
            categories[300 * number] = annotation["category_id"]
        file_name = f"{Path(image['file_name']).stem}.png"
        write_ids(ids, folder / file_name)
        annotations.append(
            {
                "image_id": image["id"],
                "file_name": file_name,
                "segments_info": [
                    {"id": i, "category_id": c, "iscrowd": int(i == 300 and len(objects) > 1)}
                    for i, c in categories.items()
                    if (ids == i).any()
                ],
            }
        )
    things = [{**category, "isthing": 1} for category in content["categories"]]
    stuff = [{"id": i, "name": name, "isthing": 0} for i, name in STUFF.items()]
    panoptic_json = root / "panoptic.json"
    panoptic_json.write_text(
        json.dumps(
            {
                "images": content["images"],
                "annotations": annotations,
                "categories": stuff + things,
            }
        )
    )
    return {
        "panoptic_json": str(panoptic_json),
        "panoptic_root": str(folder),
        "instances_json": instances_json,
        "image_root": image_root,
    }


def write_ids(ids: np.ndarray, path: Path) -> None:
    """Segment ids (H, W) as COCO colours them."""
    colours = [ids % 256, ids // 256 % 256, ids // 256**2]
    Image.fromarray(np.stack(colours, axis=2).astype(np.uint8)).save(path)


def read_ids(path: Path) -> np.ndarray:
    """Segment ids (H, W) of a COCO panoptic picture."""
    red, green, blue = np.array(Image.open(path)).astype(np.int64).transpose(2, 0, 1)
    return red + 256 * green + 256**2 * blue

"""Pictures of several sizes, landscape, portrait and square, in a COCO-format file.

Class "common" is in every picture, class "rare" in the first one only.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((64, 48), (48, 64), (64, 64), (72, 56), (40, 64))  # width, height


def write_mixed_set(root: Path, *, images: int = 12) -> tuple[str, str]:
    """Write it; returns the file and the image folder. Image ids are 10, 20, …"""
    draw = np.random.RandomState(0)
    folder = root / "images"
    folder.mkdir(parents=True)
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "common"}, {"id": 7, "name": "rare"}],
    }
    for number in range(images):
        width, height = SIZES[number % len(SIZES)]
        pixels = draw.randint(0, 80, (height, width, 3)).astype(np.uint8)
        record = {"id": 10 * (number + 1), "width": width, "height": height}
        record["file_name"] = f"{number:02d}.png"
        content["images"].append(record)
        for category in (3, 7) if number == 0 else (3,):
            x, y = (int(v) for v in draw.randint(2, 16, 2))
            w, h = (int(v) for v in draw.randint(12, 22, 2))
            pixels[y : y + h, x : x + w] = 120 + 10 * category
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": record["id"],
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [corners],
                }
            )
        Image.fromarray(pixels).save(folder / record["file_name"])
    file = root / "mixed.json"
    file.write_text(json.dumps(content))
    return str(file), str(folder)

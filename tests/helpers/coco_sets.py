"""Small random COCO sets and results that meet every rule of COCO's evaluation."""

import numpy as np
from pycocotools import mask as mask_util

__all__ = ["draw_set"]

_HEIGHT, _WIDTH = 48, 64  # pixels; areas are drawn, not measured, to meet all of COCO's ranges
_COCO_BOUNDS = (0.0, 32.0**2, 96.0**2, 1e10)


def draw_set(seed: int, *, keypoints: int = 0) -> tuple[dict, list[dict]]:
    """An annotation file's content, and results for it with boxes, masks and keypoints.

    There are gaps in the ids, images and categories without objects, images without detections,
    crowds, objects marked ``ignore``, areas at COCO's bounds, boxes without width, empty masks and
    masks at the border, masks in all of COCO's encodings, equal scores, categories with more
    detections than count, and objects of which no keypoint is labelled.
    """
    rng = np.random.default_rng(seed)
    images = [
        {"id": int(i) * 7 + 3, "height": _HEIGHT, "width": _WIDTH} for i in rng.permutation(6)
    ]
    categories = [{"id": 3 * c + 2, "name": f"class {c}"} for c in range(rng.integers(1, 5))]
    of_objects = [c["id"] for c in categories][: int(rng.integers(1, 5))]
    dataset = {"images": images, "categories": categories, "annotations": []}
    results = []
    for image in images:
        objects = []
        for _ in range(rng.integers(0, 10)):
            objects.append(_object(rng, image["id"], int(rng.choice(of_objects)), keypoints))
            objects[-1]["id"] = 5 * (len(dataset["annotations"]) + len(objects))
        dataset["annotations"] += objects
        for _ in range(int(rng.choice([0, 10, 40, 200]))):
            near = objects[rng.integers(len(objects))] if objects and rng.random() < 0.6 else None
            results.append(_result(rng, image["id"], near, categories, keypoints))
    return dataset, results


def _object(rng, image_id: int, category_id: int, keypoints: int) -> dict:
    box = _box(rng)
    crowd = int(rng.random() < 0.15)
    drawn = {"image_id": image_id, "category_id": category_id, "bbox": box, "iscrowd": crowd}
    drawn["area"] = float(
        rng.choice(_COCO_BOUNDS) if rng.random() < 0.2 else np.exp(rng.uniform(3, 11))
    )
    drawn["segmentation"] = _ground_truth_mask(rng, box, crowd)
    if rng.random() < 0.1:
        drawn["ignore"] = 1  # which COCO's evaluation ignores
    if keypoints:
        x, y, width, height = box
        places = rng.uniform([x, y], [x + width, y + height], (keypoints, 2)).round()
        labels = rng.choice([0, 1, 2], keypoints) * (rng.random() < 0.85)
        places[labels == 0] = 0
        drawn["keypoints"] = np.column_stack([places, labels]).astype(int).flatten().tolist()
        drawn["num_keypoints"] = int(np.count_nonzero(labels))
    return drawn


def _result(rng, image_id: int, near: dict | None, categories: list[dict], keypoints: int) -> dict:
    category = int(rng.choice([c["id"] for c in categories]))
    if near is None:
        box = _box(rng)
        places = rng.uniform(0, _WIDTH, (keypoints, 2))
    else:
        box = near["bbox"] + rng.normal(0, rng.choice([0, 1, 4]), 4)
        box = [*box[:2].tolist(), *box[2:].clip(0).tolist()]
        category = near["category_id"] if rng.random() < 0.9 else category
        places = np.reshape(near.get("keypoints", []), (-1, 3))[:, :2]
        places = places + rng.normal(0, rng.choice([0, 1, 5]), places.shape)
    score = float(rng.random())
    drawn = {"image_id": image_id, "category_id": category, "bbox": box}
    drawn["score"] = round(score, 1) if rng.random() < 0.5 else score
    drawn["segmentation"] = _compressed(_ellipse(rng, box))
    if keypoints:
        drawn["keypoints"] = np.column_stack([places, np.ones(keypoints)]).flatten().tolist()
    return drawn


def _box(rng) -> list[float]:
    width, height = np.exp(rng.uniform(0, np.log([_WIDTH, _HEIGHT])))
    x, y = rng.uniform(0, _WIDTH - width), rng.uniform(0, _HEIGHT - height)
    if rng.random() < 0.1:
        x, width = 0.0, float(_WIDTH)
    if rng.random() < 0.05:
        width = 0.0
    return [float(x), float(y), float(width), float(height)]


def _ellipse(rng, box: list[float]) -> np.ndarray:
    """The ellipse in a box, (H, W); sometimes nothing."""
    x, y, width, height = box
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH] + 0.5
    inside = ((columns - x - width / 2) / max(width / 2, 0.5)) ** 2 + (
        (rows - y - height / 2) / max(height / 2, 0.5)
    ) ** 2 <= 1
    return inside & (rng.random() > 0.05)


def _ground_truth_mask(rng, box: list[float], crowd: int) -> list | dict:
    mask = _ellipse(rng, box)
    encoding = rng.integers(3)
    if encoding == 0 and not crowd:
        x, y, width, height = box
        whole = [x, y, x + width, y, x + width, y + height, x, y + height]
        corner = [x, y, x + width / 3, y, x, y + height / 2]
        rest = [x + width / 2, y, x + width, y, x + width, y + height * 0.7]
        return [whole] if rng.random() < 0.5 else [corner, rest]
    if encoding == 1:
        flat = np.concatenate([[False], mask.flatten(order="F")])
        ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), mask.size)
        return {"size": [_HEIGHT, _WIDTH], "counts": np.diff(ends, prepend=0).tolist()}
    return _compressed(mask)


def _compressed(mask: np.ndarray) -> dict:
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}

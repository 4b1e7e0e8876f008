"""A small data set for semantic segmentation, drawn shapes and the ground; predictions on it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import torch
from PIL import Image

from detectron2.data import DatasetCatalog

from resnest_d2 import get_config
from resnest_d2.data import register_label_maps, sample_set
from resnest_d2.evaluation import build_evaluator

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


def scores_of(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Scores (classes, H, W) of a model that predicts these labels."""
    index = torch.from_numpy(labels.astype(np.int64))[None]
    return torch.zeros(classes, *labels.shape, dtype=torch.uint8).scatter_(0, index, 1)


def wrong_labels(truth: np.ndarray, classes: np.ndarray, *, seed: int, blocks: int) -> np.ndarray:
    """A label map moved by some pixels, with blocks of it in other classes.

    Args:
        classes: those that a pixel may have.
    """
    rng = np.random.default_rng(seed)
    found = np.roll(truth, rng.integers(-9, 10, 2), axis=(0, 1)) if blocks else truth
    side = max(truth.shape) // 5
    for _ in range(blocks):
        top, left = (int(rng.integers(side)) for side in found.shape)
        found[top : top + side, left : left + side] = rng.choice(classes)
    return np.where(np.isin(found, classes), found, classes[0])


def evaluate_labels(
    folder: Path,
    data: tuple[str, str],
    blocks: int,
    *opts: str,
    names: tuple[str, ...] = CLASSES,
    seed: int = 0,
) -> dict[str, float]:
    """Write a run's folder: its config and the evaluation of :func:`wrong_labels`.

    Args:
        data: folder of label maps, image folder.
        blocks: number of wrong blocks; without any the predictions are the truth.
        opts: ``KEY VALUE …`` for the config.

    Returns:
        The metrics.
    """
    name = register_label_maps(*data, names)
    classes = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", len(names)]
    cfg = get_config("deeplabv3_resnest50_ade20k", [*classes, "OUTPUT_DIR", str(folder), *opts])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(cfg.dump())
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    for place, record in enumerate(DatasetCatalog.get(name)):
        truth = np.array(Image.open(record["sem_seg_file_name"]))
        own = 1000 * seed + place
        found = wrong_labels(truth, np.arange(len(names)), seed=own, blocks=blocks)
        evaluator.process([record], [{"sem_seg": scores_of(found, len(names))}])
    return evaluator.evaluate()["sem_seg"]

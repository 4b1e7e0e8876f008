"""A small data set for classification: stripes of one colour a class, in folders."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detectron2.data import DatasetCatalog

from resnest_d2 import get_config
from resnest_d2.data.folders.class_folders import check_class_folders
from resnest_d2.data.folders.class_sets import class_folder_files
from resnest_d2.evaluation import build_evaluator

CLASSES = ("blue", "green", "red")

# A schedule in iterations, for recipes in epochs.
ITERATIONS = tuple(
    word
    for name in ("MAX", "WARMUP", "EVAL_PERIOD", "CHECKPOINT_PERIOD")
    for word in (f"RESNEST.EPOCHS.{name}", "0")
)


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


def evaluate_classes(
    folder: Path, root: str, wrong: int, *opts: str, seed: int = 0
) -> dict[str, float]:
    """Write a run's folder: its config and the evaluation of made-up probabilities.

    Args:
        root: folder of the class folders.
        wrong: number of images, drawn with ``seed``, whose next class has the highest probability.
        opts: ``KEY VALUE …`` for the config.

    Returns:
        The metrics.
    """
    files = class_folder_files(check_class_folders(root))
    files.register()
    classes = len(files.class_names)
    small = ["RESNEST.CLASSIFIER.NUM_CLASSES", classes, "OUTPUT_DIR", str(folder)]
    cfg = get_config("classify_resnest50", [*small, *opts])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(cfg.dump())
    evaluator = build_evaluator(cfg, files.name)
    evaluator.reset()
    records, random = DatasetCatalog.get(files.name), np.random.default_rng(seed)
    confused = set(random.permutation(len(records))[:wrong].tolist())
    for place, record in enumerate(records):
        probabilities = torch.full((classes,), 0.1)
        best = record["label"] + (place in confused)
        probabilities[best % classes] = 0.5 + 0.4 * float(random.random())
        record |= {"height": 40, "width": 60}
        evaluator.process([record], [{"probabilities": probabilities / probabilities.sum()}])
    return evaluator.evaluate()["classification"]

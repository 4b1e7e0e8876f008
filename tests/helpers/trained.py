"""Small models of every family, trained until they find something in the sample set."""

import os
from pathlib import Path

from class_sets import ITERATIONS, write_class_set
from label_sets import write_label_set
from segmentors import HEADS, SMALL, head_opts

from resnest_d2.data import sample_set
from resnest_d2.engine import RunRequest, run

FAMILIES = {
    "faster": "faster_rcnn_resnest50_fpn",
    "mask": "mask_rcnn_resnest50_fpn",
    "cascade": "cascade_rcnn_resnest50_fpn",
    "cascade_mask": "cascade_mask_rcnn_resnest50_fpn",
    "retinanet": "retinanet_resnest50_fpn",
    "deformable": "faster_rcnn_resnest50_dcn_fpn",
    "deformable_cascade_mask": "cascade_mask_rcnn_resnest200_dcn_fpn_3x",
}


def train_family(family: str, folder: str | os.PathLike, *opts: str, iterations: int = 250) -> Path:
    """Train one on the sample set; its run's folder, with checkpoint and results.

    Half a minute to two, by the family, with one thread.
    """
    configs = Path(__file__).parents[2] / "configs"
    folder = Path(folder)
    config = folder.with_suffix(".yaml")
    folder.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f"""
_BASE_: ["{configs / FAMILIES[family]}.yaml", "{configs / "Base-Sample.yaml"}"]
MODEL:
  MASK_ON: {"mask" in family}
  RESNETS: {{DEPTH: 14, STEM_WIDTH: 16, WIDTH_PER_GROUP: 32, RES2_OUT_CHANNELS: 128}}
  ROI_BOX_CASCADE_HEAD: {{IOUS: [0.5, 0.6, 0.7]}}
SOLVER: {{IMS_PER_BATCH: 4, MAX_ITER: {iterations}, WARMUP_ITERS: 20, CHECKPOINT_PERIOD: 100000}}
TEST: {{EVAL_PERIOD: 0}}
RESNEST: {{AUTO_SCALE: False, AMP_DTYPE: ""}}
"""
    )
    data = sample_set()
    request = RunRequest(
        config=str(config),
        opts=("MODEL.DEVICE", "cpu", "SEED", "1", "OUTPUT_DIR", str(folder), *opts),
        train=(data["train"],),
        val=(data["val"],),
    )
    run(request)
    return folder


def train_classifier(folder: str | os.PathLike, *, iterations: int = 20) -> Path:
    """The same of an image classifier."""
    folder = Path(folder)
    data = write_class_set(folder.with_name(f"{folder.name}_data"))
    opts = (
        *("SEED", "1", "OUTPUT_DIR", str(folder), "DATALOADER.NUM_WORKERS", "0"),
        *("RESNEST.CLASSIFIER.TRAIN_SIZE", "64", "RESNEST.CLASSIFIER.TEST_SIZE", "96"),
        *(*ITERATIONS, "SOLVER.WARMUP_ITERS", "2"),
        *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", str(iterations)),
        *("SOLVER.BASE_LR", "0.02", "RESNEST.AUTO_SCALE", "False"),
    )
    run(
        RunRequest(
            config="classify_resnest50",
            opts=(*SMALL, *opts),
            train=(("", data["train"]),),
        )
    )
    return folder


def train_segmentor(head: str, folder: str | os.PathLike, *, iterations: int = 100) -> Path:
    """The same of a model for semantic segmentation with one of the heads."""
    folder = Path(folder)
    data = write_label_set(folder.with_name(f"{folder.name}_data"), image_size=96, train=16)
    opts = (
        *("SEED", "1", "OUTPUT_DIR", str(folder), "DATALOADER.NUM_WORKERS", "0"),
        *("RESNEST.JITTER.SIZE", "96", "RESNEST.JITTER.CROP", "88", "INPUT.MIN_SIZE_TEST", "96"),
        *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", str(iterations)),
        *("SOLVER.BASE_LR", "0.05", "RESNEST.AUTO_SCALE", "False"),
    )
    request = RunRequest(
        config=HEADS[head],
        opts=(*SMALL, *head_opts(head), *opts),
        train=(data["train"],),
        classes=str(data["classes"]),
    )
    run(request)
    return folder

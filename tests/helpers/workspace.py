"""A folder in which the documentation's examples work: pictures, data, runs, weights, all small."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from checkout import ROOT
from class_sets import ITERATIONS, write_class_set
from label_sets import write_label_set
from PIL import Image
from runs import TINY

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from resnest_d2 import ResNeSt, get_config
from resnest_d2.checkpoint import convert, write_weights
from resnest_d2.data import sample_set
from resnest_d2.engine import NonFiniteLossError, RunRequest, run

RECIPE = "mask_rcnn_resnest50_fpn"

SMALLER = (
    *TINY,
    *("MODEL.RESNETS.DEPTH", "26", "MODEL.ROI_BOX_HEAD.CONV_DIM", "16"),
    *("MODEL.BACKBONE.FREEZE_AT", "0", "TEST.PRECISE_BN.NUM_ITER", "1"),
    *("TEST.AUG.MIN_SIZES", "(48, 64)", "TEST.AUG.MAX_SIZE", "96"),
    *("INPUT.MIN_SIZE_TEST", "96"),
)
"""What makes the training of a recipe a matter of a second."""


CLASSIFIER = (
    *ITERATIONS,
    *("RESNEST.CLASSIFIER.TRAIN_SIZE", "32", "RESNEST.CLASSIFIER.TEST_SIZE", "32"),
)
"""The same for a classifier, besides."""


@dataclass(frozen=True)
class Material:
    """What workspaces are made of.

    Attributes:
        folder: its entries are what a user has: ``photos/``, ``train.json``, ``runs/mine`` …
        weights: stand-ins for published weights, for ``RESNEST_D2_WEIGHTS``.
    """

    folder: Path
    weights: Path


def make_material(root: Path) -> Material:
    """Draw the data, train the runs; some seconds."""
    folder, weights = root / "material", root / "weights"
    folder.mkdir()
    weights.mkdir()
    data = sample_set(str(root), image_size=64, train_images=4, val_images=3)
    for split, names in {"train": ("train", "all"), "val": ("val", "other")}.items():
        json_file, images = data[split]
        content = json.loads(Path(json_file).read_text())
        for annotation in content["annotations"]:
            annotation["segmentation"] = [_corners(annotation["bbox"])]
        for name in names:
            (folder / f"{name}.json").write_text(json.dumps(content))
            shutil.copytree(images, folder / name)
    os.symlink("val", folder / "images")
    _write_photos(folder)
    _write_coco(folder)
    _write_weights(folder, weights)
    _train(folder, root)
    _train_segmentor(folder)
    _train_classifier(folder, weights)
    return Material(folder, weights)


def enter(material: Material, folder: Path, text: str) -> None:
    """Fill a new folder with what an example needs: everything but what it is going to write.

    Args:
        text: the example.
    """
    written = re.findall(r"(?:OUTPUT_DIR |output_dir=\")runs/(\w+)", text)
    if "--resume" in text:
        written = []
    for entry in material.folder.iterdir():
        if entry.name == "output" and "output/" not in text:
            continue  # Detectron2's OUTPUT_DIR where none is given
        if entry.name != "runs":
            os.symlink(entry, folder / entry.name)
    os.symlink(ROOT / "configs", folder / "configs")
    for name, pattern in re.findall(r"\bruns/(\w+)(\*?)", text):
        for source in (material.folder / "runs").glob(name + pattern):
            target = folder / "runs" / source.name
            if source.name not in written and not target.exists():
                shutil.copytree(source, target)


def _write_photos(folder: Path) -> None:
    (folder / "photos" / "holiday").mkdir(parents=True)
    (folder / "more" / "old").mkdir(parents=True)
    pictures = [Image.open(file) for file in sorted((folder / "val").iterdir())]
    pictures[0].save(folder / "photos" / "1.jpg", quality=95)
    pictures[1].save(folder / "photos" / "holiday" / "2.jpg", quality=95)
    pictures[2].save(folder / "more" / "old" / "3.jpg", quality=95)
    for name in ("street.jpg", "photo.jpg", "bird.jpg"):
        pictures[0].save(folder / name, quality=95)


def _write_coco(folder: Path) -> None:
    """COCO's files where Detectron2 looks for them; the shapes are the first of its classes."""
    metadata = MetadataCatalog.get("coco_2017_train")
    numbers = metadata.thing_dataset_id_to_contiguous_id
    categories = [{"id": i, "name": metadata.thing_classes[n]} for i, n in numbers.items()]
    coco = folder / "datasets" / "coco"
    (coco / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        content = json.loads((folder / f"{split}.json").read_text())
        content["categories"] = categories
        (coco / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
        shutil.copytree(folder / split, coco / f"{split}2017")


def _corners(box: list[float]) -> list[float]:
    """A box as a polygon, which is what the recipes train on; the shapes are run lengths."""
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _write_weights(folder: Path, weights: Path) -> None:
    (folder / "output").mkdir()
    detector = build_model(get_config(RECIPE, SMALLER)).state_dict()
    for file in (folder / "output" / "model_final.pth", weights / f"{RECIPE}.pth"):
        torch.save({"model": detector}, file)
    classifier = ResNeSt.from_variant("resnest14", num_classes=10).state_dict()
    official = convert(classifier, "resnest_d2", "official")
    for file in (folder / "resnest50-528c19ca.pth", weights / "resnest50_detectron.pth"):
        torch.save(official, file)
    write_weights(convert(official, "official", "timm"), folder / "model.safetensors")
    backbone = convert(official, "official", "detectron2")
    torch.save({"model": backbone}, folder / "resnest50_detectron-255b5649.pth")


def _train(folder: Path, root: Path) -> None:
    """``runs/mine`` with a file of a loss that was not finite, and runs to compare it with."""
    data = {
        split: (str(folder / f"{split}.json"), str(folder / split)) for split in ("train", "val")
    }
    mine = folder / "runs" / "mine"

    def request(output: Path, *opts: str) -> RunRequest:
        opts = (*SMALLER, "MODEL.WEIGHTS", "", "OUTPUT_DIR", str(output), *opts)
        return RunRequest(RECIPE, opts, train=(data["train"],), val=(data["val"],))

    run(request(mine))
    _decide(mine / "model_final.pth")
    try:
        run(request(root / "broken", "SOLVER.BASE_LR", "1e30"))
    except NonFiniteLossError as error:
        shutil.copy(error.file, mine / "nonfinite_0000003_rank0.pth")
    for name in ("resnet50", "resnest50", *(f"resne{x}50_{n}" for x in ("t", "st") for n in "12")):
        shutil.copytree(mine, folder / "runs" / name)
    deeper = folder / "runs" / "resnet101_1"
    shutil.copytree(mine, deeper)
    config = deeper / "config.yaml"
    config.write_text(config.read_text().replace("DEPTH: 26", "DEPTH: 101"))
    (folder / "study.yaml").write_text("groups: {resnet50: {}, resnest50: {}}\n")


def _train_segmentor(folder: Path) -> None:
    """``street/``, images and label maps; ``runs/street``, and runs to compare with it."""
    data = write_label_set(folder / "street", train=4, val=2)
    for split in ("training", "validation"):
        target = folder / "datasets" / "ADEChallengeData2016" / "annotations" / split
        shutil.copytree(data["val"][0], target)
    opts = (*SMALLER, "MODEL.WEIGHTS", "", "OUTPUT_DIR", str(folder / "runs" / "street"))
    request = RunRequest(
        "deeplabv3_resnest50_ade20k",
        (*opts, "RESNEST.JITTER.SIZE", "64", "RESNEST.JITTER.CROP", "48"),
        train=(data["train"],),
        val=(data["val"],),
        classes=str(data["classes"]),
    )
    run(request)
    for name in ("street50", "street101"):
        shutil.copytree(folder / "runs" / "street", folder / "runs" / name)


def _train_classifier(folder: Path, weights: Path) -> None:
    """``birds/``, images in folders of classes; ``runs/birds``; a stand-in for published weights
    and for ImageNet.
    """
    data = write_class_set(folder / "birds", train=2, val=2)
    shutil.copytree(data["val"], folder / "datasets" / "imagenet" / "val")
    recipe, opts = "classify_resnest50", (*SMALLER, *CLASSIFIER)
    torch.save(
        {"model": build_model(get_config(recipe, SMALLER)).state_dict()}, weights / "resnest50.pth"
    )
    opts = (*opts, "OUTPUT_DIR", str(folder / "runs" / "birds"))
    run(RunRequest(recipe, opts, train=(("", data["train"]),), val=(("", data["val"]),)))


def _decide(checkpoint: Path) -> None:
    """Fill every box with its mask: that of no training is near 0.5, where rounding decides."""
    stored = torch.load(checkpoint, weights_only=True)
    stored["model"]["roi_heads.mask_head.predictor.weight"].zero_()
    stored["model"]["roi_heads.mask_head.predictor.bias"].fill_(5)
    torch.save(stored, checkpoint)


def forget_data_sets(known: list[str]) -> None:
    """Leave only these registered, as a new process would have them."""
    for name in set(DatasetCatalog.list()) - set(known):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)

"""Published files of weights: where they are, how they are checked, what they expect.

Left out, because they cannot be used here: the MXNet ``.params`` files of the official Gluon
models, and MMDetection's detectors, whose heads are other networks than Detectron2's.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.statistics import CLASSIFIER, DETECTOR, MSRA, InputStatistics
from ..config import ALIASES

__all__ = ["WEIGHTS", "WeightFile"]


@dataclass(frozen=True)
class WeightFile:
    """One published file.

    Attributes:
        name: as in ``resnest://NAME``.
        urls: mirrors, tried in this order. ``hf://OWNER/REPOSITORY/FILE`` is Hugging Face's hub.
        sha256: all 64 hex digits, or the first 8, which published file names carry, or "" where
            nothing is known. That the detectors' names carry it too is likely, not confirmed.
        format: a name of :mod:`resnest_d2.checkpoint.convert`'s formats.
        statistics: how images must be given to it.
        license: SPDX name; the publishing project's, as its package states it. No file states
            one of its own.
        note: what a user should know.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    format: str
    statistics: InputStatistics
    license: str
    note: str = ""


_OFFICIAL = "https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1/"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/"
_WASABI = "https://s3.us-west-1.wasabisys.com/resnest/"
_S3 = "https://hangzh.s3-us-west-1.amazonaws.com/encoding/models/"
_S3_FIRST = "https://hangzh.s3.amazonaws.com/encoding/models/"


def _official(hashes: dict[str, str]) -> Iterator[WeightFile]:
    """ImageNet classifiers of the official project; timm's releases have copies of some files."""
    for name, digits in hashes.items():
        file = f"{name}-{digits}.pth"
        urls, note = [_OFFICIAL + file], ""
        if "fast" not in name or name in ("resnest50_fast_4s2x40d", "resnest50_fast_1s4x24d"):
            urls.append(f"{_TIMM}v0.1-resnest/{file}")
        if "fast" not in name:
            urls.append(f"{_WASABI}torch/{file}")
            note = "the third mirror is reported to answer 403 since 2021"
        yield WeightFile(name, tuple(urls), digits, "official", CLASSIFIER, "Apache-2.0", note)


def _gluon(hashes: dict[str, str]) -> Iterator[WeightFile]:
    """Classifiers that timm converted from Gluon."""
    for name, digits in hashes.items():
        url = f"{_TIMM}v0.1-weights/gluon_{name}-{digits}.pth"
        yield WeightFile(name, (url,), digits, "official", CLASSIFIER, "Apache-2.0")


def _hugging_face(names: Iterable[str]) -> Iterator[WeightFile]:
    """timm's repositories."""
    for name in names:
        url = f"hf://timm/{name}/model.safetensors"
        yield WeightFile(name, (url,), "", "timm", CLASSIFIER, "Apache-2.0")


def _backbones(hashes: dict[str, tuple[str, str]]) -> Iterator[WeightFile]:
    """The original plugin's backbones: current generation, first generation.

    The first goes by its published file name, hash included.
    """
    for name, (current, first) in hashes.items():
        file = f"{name}-{current}.pth"
        yield WeightFile(
            name,
            (f"{_WASABI}detectron/{file}", f"{_S3}{file}"),
            current,
            "detectron2",
            DETECTOR,
            "Apache-2.0",
            "the second mirror is reported dead",
        )
        yield WeightFile(
            f"{name}-{first}",
            (f"{_S3_FIRST}{name}-{first}.pth",),
            first,
            "resnest_d2",
            DETECTOR,
            "Apache-2.0",
            f"superseded by {name}; its host is reported dead",
        )


def _detectors(hashes: dict[str, str]) -> Iterator[WeightFile]:
    """The original plugin's trained detectors, by the name of our recipe.

    Their files are named like its config files.
    """
    originals = {recipe: Path(file).stem for file, recipe in ALIASES.items()}
    for name, digits in hashes.items():
        file = f"{originals[name]}-{digits}" if digits else originals[name]
        yield WeightFile(
            name,
            (f"{_WASABI}detectron/{file}.pth",),
            digits,
            "detectron2",
            DETECTOR if "resnest" in name else MSRA,
            "Apache-2.0",
            "" if digits else "no hash was published",
        )


def _open_mmlab(
    folder: str, layout: str, statistics: InputStatistics, hashes: dict[str, str]
) -> Iterator[WeightFile]:
    """Files that MMDetection and MMPretrain converted from the official classifiers."""
    for name, digits in hashes.items():
        url = f"https://download.openmmlab.com/{folder}/{name}-{digits}.pth"
        yield WeightFile(name, (url,), digits, layout, statistics, "Apache-2.0")


_FAMILIES = (
    _official(
        {
            "resnest50": "528c19ca",
            "resnest101": "22405ba7",
            "resnest200": "75117900",
            "resnest269": "0cc87c48",
            "resnest50_fast_1s1x64d": "d8fbf808",
            "resnest50_fast_2s1x64d": "44938639",
            "resnest50_fast_4s1x64d": "f74f3fc3",
            "resnest50_fast_1s2x40d": "32830b84",
            "resnest50_fast_2s2x40d": "9d126481",
            "resnest50_fast_4s2x40d": "41d14ed0",
            "resnest50_fast_1s4x24d": "d4a4f76f",
        }
    ),
    _gluon({"resnest14": "9c8fe254", "resnest26": "50eb607c"}),
    _hugging_face(
        (
            "resnest14d.gluon_in1k",
            "resnest26d.gluon_in1k",
            "resnest50d.in1k",
            "resnest101e.in1k",
            "resnest200e.in1k",
            "resnest269e.in1k",
            "resnest50d_4s2x40d.in1k",
            "resnest50d_1s4x24d.in1k",
        )
    ),
    _backbones(
        {
            "resnest50_detectron": ("255b5649", "b22b3cfa"),
            "resnest101_detectron": ("486f69a8", "5667c874"),
            "resnest200_detectron": ("02644020", "b13b91ae"),
            "resnest269_detectron": ("69df4066", "8e11ab71"),
        }
    ),
    _detectors(
        {
            "faster_rcnn_resnet50_fpn": "fde56e2b",
            "faster_rcnn_resnet101_fpn": "57c73356",
            "faster_rcnn_resnest50_fpn": "ad123c0b",
            "faster_rcnn_resnest50_dcn_fpn": "",
            "faster_rcnn_resnest101_fpn": "d8f284b6",
            "cascade_rcnn_resnet50_fpn": "3c7f2ef2",
            "cascade_rcnn_resnet101_fpn": "4073359b",
            "cascade_rcnn_resnest50_fpn": "e9955232",
            "cascade_rcnn_resnest101_fpn": "3627ef78",
            "cascade_rcnn_resnest200_fpn": "1be2a87e",
            "mask_rcnn_resnet50_fpn": "4939bd58",
            "mask_rcnn_resnet101_fpn": "55493cc2",
            "mask_rcnn_resnest50_fpn": "f442d863",
            "mask_rcnn_resnest101_fpn": "528502c6",
            "cascade_mask_rcnn_resnet50_fpn": "03310c9b",
            "cascade_mask_rcnn_resnet101_fpn": "8cec1631",
            "cascade_mask_rcnn_resnest50_fpn": "c58bd325",
            "cascade_mask_rcnn_resnest101_fpn": "62448b9c",
            "cascade_mask_rcnn_resnest200_fpn_3x": "",
            "cascade_mask_rcnn_resnest200_dcn_fpn_3x": "e1901134",
            "panoptic_fpn_resnest200_3x": "43f8b731",
        }
    ),
    _open_mmlab(
        "pretrain/third_party",
        "mmdet",
        DETECTOR,
        {
            "resnest50_d2": "7497a55b",
            "resnest101_d2": "f3b931b2",
            "resnest200_d2": "ca88e41f",
        },
    ),
    _open_mmlab(
        "mmclassification/v0/resnest",
        "mmcls",
        CLASSIFIER,
        {
            "resnest50_imagenet_converted": "1ebf0afe",
            "resnest101_imagenet_converted": "032caa52",
            "resnest200_imagenet_converted": "581a60f2",
            "resnest269_imagenet_converted": "59930960",
        },
    ),
)

WEIGHTS: dict[str, WeightFile] = {file.name: file for family in _FAMILIES for file in family}
"""Every published file that can be used here, by name."""

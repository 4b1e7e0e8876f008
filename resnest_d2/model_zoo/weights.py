"""Published files of weights: mirrors, hashes, formats, input statistics.

Left out: the MXNet ``.params`` files of the official Gluon models, and MMDetection's detectors,
whose heads are other networks than Detectron2's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.statistics import CLASSIFIER, DETECTOR, MSRA, InputStatistics
from ..config import ALIASES


@dataclass(frozen=True)
class WeightFile:
    """One published file.

    Attributes:
        name: as in ``resnest://NAME``.
        urls: mirrors, tried in this order. ``hf://OWNER/REPOSITORY/FILE`` is Hugging Face's hub.
        sha256: all 64 hex digits, or the first 8, which published file names carry, or "" where
            nothing is known. That the detectors' names carry it too is likely, not confirmed.
        sha1: all 40 hex digits, where this is the published hash.
        format: one of :data:`resnest_d2.checkpoint.FORMATS`.
        statistics: the input that the weights expect.
        license: SPDX name of the publishing project's licence. No file states one of its own.
        note: what a user should know.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    format: str
    statistics: InputStatistics
    license: str = "Apache-2.0"
    note: str = ""
    sha1: str = ""


_OFFICIAL = "https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1/{file}.pth"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/"
_TIMM_COPY = _TIMM + "v0.1-resnest/{file}.pth"
_WASABI = "https://s3.us-west-1.wasabisys.com/resnest/"
_DETECTRON = _WASABI + "detectron/{file}.pth"
_S3 = "https://hangzh.s3-us-west-1.amazonaws.com/encoding/models/{file}.pth"
_S3_FIRST = "https://hangzh.s3.amazonaws.com/encoding/models/{name}.pth"
_OPEN_MMLAB = "https://download.openmmlab.com/"

_ENCODING = "https://hangzh.s3.amazonaws.com/encoding/models/{name}-{hash}.zip"

_ORIGINALS = {recipe: Path(file).stem for file, recipe in ALIASES.items()}


def _files(
    format: str, statistics: InputStatistics, urls: tuple[str, ...], names: str, note: str = ""
) -> Iterator[WeightFile]:
    """Files of one kind.

    Args:
        urls: ``{name}`` in them is the file's name here, ``{file}`` its published name.
        names: each with ``-HASH``, the end of its published name, where it has one.
        note: ``{network}`` in it is the name without any hash.
    """
    for published in names.split():
        name, _, sha256 = published.rpartition("-") if "-" in published else (published, "", "")
        file = published.replace(name, _ORIGINALS.get(name, name))  # detectors: the config's name
        yield WeightFile(
            name,
            tuple(url.format(name=name, file=file) for url in urls),
            sha256,
            format,
            statistics,
            note=note.format(network=name.partition("-")[0]),
        )


def _segmentation(rows: str) -> Iterator[WeightFile]:
    """Models of PyTorch-Encoding, by the names of our recipes. Each file is alone in a zip archive.

    Args:
        rows: published name and sha1.
    """
    for published, sha1 in (row.split() for row in rows.strip().splitlines()):
        head, backbone, data = published.split("_")
        yield WeightFile(
            f"{_HEADS[head]}_{backbone}_{_DATA[data]}",
            (_ENCODING.format(name=published, hash=sha1[:8]),),
            "",
            "encoding",
            CLASSIFIER,
            license="MIT",
            note=f"published as {published}; its host is reported dead",
            sha1=sha1,
        )


_HEADS = {"deeplab": "deeplabv3", "fcn": "fcn"}
_DATA = {"ade": "ade20k", "pcontext": "pcontext"}

WEIGHTS: dict[str, WeightFile] = {
    file.name: file
    for files in (
        # ImageNet classifiers of the official project; timm's releases have copies of some
        _files(
            "official",
            CLASSIFIER,
            (_OFFICIAL, _TIMM_COPY, _WASABI + "torch/{file}.pth"),
            "resnest50-528c19ca resnest101-22405ba7 resnest200-75117900 resnest269-0cc87c48",
            "the third mirror is reported to answer 403 since 2021",
        ),
        _files(
            "official",
            CLASSIFIER,
            (_OFFICIAL,),
            "resnest50_fast_1s1x64d-d8fbf808 resnest50_fast_2s1x64d-44938639 "
            "resnest50_fast_4s1x64d-f74f3fc3 resnest50_fast_1s2x40d-32830b84 "
            "resnest50_fast_2s2x40d-9d126481",
        ),
        _files(
            "official",
            CLASSIFIER,
            (_OFFICIAL, _TIMM_COPY),
            "resnest50_fast_4s2x40d-41d14ed0 resnest50_fast_1s4x24d-d4a4f76f",
        ),
        # converted from Gluon by timm
        _files(
            "official",
            CLASSIFIER,
            (_TIMM + "v0.1-weights/gluon_{file}.pth",),
            "resnest14-9c8fe254 resnest26-50eb607c",
        ),
        # timm's repositories
        _files(
            "timm",
            CLASSIFIER,
            ("hf://timm/{name}/model.safetensors",),
            "resnest14d.gluon_in1k resnest26d.gluon_in1k resnest50d.in1k resnest101e.in1k "
            "resnest200e.in1k resnest269e.in1k resnest50d_4s2x40d.in1k resnest50d_1s4x24d.in1k",
        ),
        # the original plugin's backbones, second and first generation
        _files(
            "detectron2",
            DETECTOR,
            (_DETECTRON, _S3),
            "resnest50_detectron-255b5649 resnest101_detectron-486f69a8 "
            "resnest200_detectron-02644020 resnest269_detectron-69df4066",
            "the second mirror is reported dead",
        ),
        _files(
            "resnest_d2",
            DETECTOR,
            (_S3_FIRST,),
            "resnest50_detectron-b22b3cfa-b22b3cfa resnest101_detectron-5667c874-5667c874 "
            "resnest200_detectron-b13b91ae-b13b91ae resnest269_detectron-8e11ab71-8e11ab71",
            "superseded by {network}; its host is reported dead",
        ),
        # the original plugin's trained detectors, by the names of our recipes
        _files(
            "detectron2",
            MSRA,
            (_DETECTRON,),
            "faster_rcnn_resnet50_fpn-fde56e2b faster_rcnn_resnet101_fpn-57c73356 "
            "cascade_rcnn_resnet50_fpn-3c7f2ef2 cascade_rcnn_resnet101_fpn-4073359b "
            "mask_rcnn_resnet50_fpn-4939bd58 mask_rcnn_resnet101_fpn-55493cc2 "
            "cascade_mask_rcnn_resnet50_fpn-03310c9b cascade_mask_rcnn_resnet101_fpn-8cec1631",
        ),
        _files(
            "detectron2",
            DETECTOR,
            (_DETECTRON,),
            "faster_rcnn_resnest50_fpn-ad123c0b faster_rcnn_resnest101_fpn-d8f284b6 "
            "cascade_rcnn_resnest50_fpn-e9955232 cascade_rcnn_resnest101_fpn-3627ef78 "
            "cascade_rcnn_resnest200_fpn-1be2a87e mask_rcnn_resnest50_fpn-f442d863 "
            "mask_rcnn_resnest101_fpn-528502c6 cascade_mask_rcnn_resnest50_fpn-c58bd325 "
            "cascade_mask_rcnn_resnest101_fpn-62448b9c "
            "cascade_mask_rcnn_resnest200_dcn_fpn_3x-e1901134 panoptic_fpn_resnest200_3x-43f8b731",
        ),
        _files(
            "detectron2",
            DETECTOR,
            (_DETECTRON,),
            "faster_rcnn_resnest50_dcn_fpn cascade_mask_rcnn_resnest200_fpn_3x",
            "no hash was published",
        ),
        # converted from the official classifiers by MMDetection and MMPretrain
        _files(
            "mmdet",
            DETECTOR,
            (_OPEN_MMLAB + "pretrain/third_party/{file}.pth",),
            "resnest50_d2-7497a55b resnest101_d2-f3b931b2 resnest200_d2-ca88e41f",
        ),
        _files(
            "mmcls",
            CLASSIFIER,
            (_OPEN_MMLAB + "mmclassification/v0/resnest/{file}.pth",),
            "resnest50_imagenet_converted-1ebf0afe resnest101_imagenet_converted-032caa52 "
            "resnest200_imagenet_converted-581a60f2 resnest269_imagenet_converted-59930960",
        ),
        _segmentation(
            """
            fcn_resnest50_ade 4aba491aaf8e4866a9c9981b210e3e3266ac1f2a
            deeplab_resnest50_ade 2225f09d0f40b9a168d9091652194bc35ec2a5a9
            deeplab_resnest101_ade 06ca799c8cc148fe0fafb5b6d052052935aa3cc8
            deeplab_resnest200_ade 7b9e7d3e6f0e2c763c7d77cad14d306c0a31fe05
            deeplab_resnest269_ade 0074dd10a6e6696f6f521653fb98224e75955496
            fcn_resnest50_pcontext 77a2161deeb1564e8b9c41a4bb7a3f33998b00ad
            deeplab_resnest50_pcontext 08dccbc4f4694baab631e037a374d76d8108c61f
            deeplab_resnest101_pcontext faf5841853aae64bd965a7bdc2cdc6e7a2b5d898
            deeplab_resnest200_pcontext fe76a26551dd5dcf2d474fd37cba99d43f6e984e
            deeplab_resnest269_pcontext b661fd26c49656e01e9487cd9245babb12f37449
            """
        ),
    )
    for file in files
}
"""Every published file that can be used here, by name."""

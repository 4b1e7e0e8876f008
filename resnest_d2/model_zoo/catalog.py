"""The catalog: what was published about each model, and what was measured here.

A model is named like its recipe in ``configs/``. AP are quoted from the original plugin, whose
recipes these are, mIoU from PyTorch-Encoding, top-1 as :mod:`.imagenet` says; costs are measured,
see :mod:`resnest_d2.model_zoo.measured`.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.modeling import build_model

from .. import config
from ..checkpoint import RunCheckpointer
from ..checkpoint.statistics import CLASSIFIER, DETECTOR, MSRA, InputStatistics
from .download import fetch
from .imagenet import CLASSIFIERS
from .measured import Measured, measured_model
from .weights import WEIGHTS

TASKS = ("detection", "instance", "keypoints", "panoptic", "semantic", "classification")

TOLERANCE = 0.2
"""AP, PQ, mIoU and top-1 may differ from the published value by this much: it was rounded, and
other hardware and versions round differently."""


@dataclass(frozen=True)
class Published:
    """Quoted results, 0-100, on the validation data of the recipe.

    Attributes:
        box_ap, mask_ap: COCO's AP of boxes and masks, at one scale.
        pq: panoptic quality, at one scale.
        miou, pixel_accuracy: of semantic segmentation, at several scales.
        top1: accuracy of classification, on one centre crop.
        source: where they are printed.
    """

    box_ap: float | None = None
    mask_ap: float | None = None
    pq: float | None = None
    miou: float | None = None
    pixel_accuracy: float | None = None
    top1: float | None = None
    source: str = "README of the original plugin, github.com/zhanghang1989/ResNeSt"


@dataclass(frozen=True)
class Model:
    """One model of the catalog.

    Attributes:
        name: also its recipe's: ``configs/NAME.yaml``.
        task: one of :data:`TASKS`.
        method: the detector, as papers call it.
        backbone: e.g. ``"resnest50"``; ``"…_dcn"`` with deformable convolutions.
        aliases: the original plugin's name of the recipe.
        baseline: the model with the same recipe on a ResNet of the same depth, or None.
        weights: name of its trained weights in :data:`WEIGHTS`, or None where there are none.
        initial_weights: what its training starts from, or "".
        statistics: the input that it expects.
        published: quoted results, or None.
        measured: costs, or None.
        own_data: it trains on files of the user's, not on COCO.
        note: what a user should know.
    """

    name: str
    task: str
    method: str
    backbone: str
    aliases: tuple[str, ...]
    baseline: str | None
    weights: str | None
    initial_weights: str
    statistics: InputStatistics
    published: Published | None
    measured: Measured | None
    own_data: bool = False
    note: str = ""

    @property
    def recipe(self) -> str:
        """The packaged config."""
        return self.name

    @property
    def gains(self) -> dict[str, float]:
        """``box_ap``, ``mask_ap``, ``miou`` above the baseline's: differences of published rows."""
        if self.baseline is None or MODELS[self.baseline].published is None:
            return {}
        base, own = MODELS[self.baseline].published, self.published
        return {
            key: round(getattr(own, key) - getattr(base, key), 2)
            for key in ("box_ap", "mask_ap", "miou")
            if None not in (getattr(own, key), getattr(base, key))
        }

    @property
    def expected_results(self) -> list[list]:
        """The published values as Detectron2's ``TEST.EXPECTED_RESULTS``; empty where none are."""
        if self.published is None:
            return []
        values = (
            ("bbox", "AP", self.published.box_ap),
            ("segm", "AP", self.published.mask_ap),
            ("panoptic_seg", "PQ", self.published.pq),
            ("sem_seg", "mIoU", self.published.miou),
            ("classification", "top1", self.published.top1),
        )
        return [[*key, value, TOLERANCE] for *key, value in values if value is not None]

    @property
    def train_command(self) -> str:
        """The command that trains it with its recipe, on 8 GPUs or on the user's files."""
        data = "--num-gpus 8"
        if self.own_data:
            data = f"--train-json train.json --train-images train/ {_OWN_VAL}"
        return f"resnest-d2 train --config-file {self.recipe} {data} OUTPUT_DIR output/{self.name}"

    @property
    def eval_command(self) -> str:
        """The command that compares the published weights with the published values.

        Where there are none, it evaluates the run that :attr:`train_command` leaves.
        """
        if self.weights:
            return f"resnest-d2 evaluate --checkpoint resnest://{self.name} --verify"
        data = f" {_OWN_VAL}" if self.own_data else ""
        return f"resnest-d2 evaluate --checkpoint output/{self.name}{data}"

    def record(self) -> dict[str, Any]:
        """Everything about it as plain types, its file of weights included."""
        derived = ("recipe", "gains", "train_command", "eval_command")
        return {
            **dataclasses.asdict(self),
            **{name: getattr(self, name) for name in derived},
            "weight_file": dataclasses.asdict(WEIGHTS[self.weights]) if self.weights else None,
        }


_OWN_VAL = "--val-json val.json --val-images val/"

_METHODS = {
    "faster_rcnn": ("Faster R-CNN", "detection"),
    "cascade_rcnn": ("Cascade R-CNN", "detection"),
    "retinanet": ("RetinaNet", "detection"),
    "mask_rcnn": ("Mask R-CNN", "instance"),
    "cascade_mask_rcnn": ("Cascade Mask R-CNN", "instance"),
    "keypoint_rcnn": ("Keypoint R-CNN", "keypoints"),
    "panoptic_fpn": ("Panoptic FPN", "panoptic"),
    "fcn": ("FCN", "semantic"),
    "deeplabv3": ("DeepLabV3", "semantic"),
    "deeplabv3plus": ("DeepLabV3+", "semantic"),
    "classify": ("classifier", "classification"),
}


def _model(name: str, *ap: float | None, baseline: str | None = None, **more) -> Model:
    """A record from its name and its published box AP, mask AP and PQ, as far as there are any."""
    method, backbone = re.match(r"(?:finetune_)?(\w+?)_(resne(?:s)?t\d+(?:_dcn)?)", name).groups()
    title, task = _METHODS[method]
    depth = re.search(r"\d+", backbone)[0]
    resnest = backbone.startswith("resnest")
    msra = f"detectron2://ImageNetPretrained/MSRA/R-{depth}.pkl"
    record = {
        "aliases": tuple(
            str(Path(file).with_suffix("")) for file, ours in config.ALIASES.items() if ours == name
        ),
        "baseline": baseline,
        "weights": name if name in WEIGHTS else None,
        "initial_weights": f"resnest://resnest{depth}_detectron" if resnest else msra,
        "statistics": DETECTOR if resnest else MSRA,
        "published": Published(*ap) if ap else None,
        "measured": measured_model(name, backbone),
    }
    return Model(name, task, title, backbone, **{**record, **more})


def _semantic(name: str, *quoted: float, baseline: str | None = None) -> Model:
    """A model for semantic segmentation, with its published mIoU and pixel accuracy."""
    more = {}
    if resnest := re.search(r"resnest\d+", name):
        more = {"initial_weights": f"resnest://{resnest[0]}", "statistics": CLASSIFIER}
    source = "model zoo of PyTorch-Encoding, github.com/zhanghang1989/PyTorch-Encoding"
    if name == "deeplabv3_resnet50_ade20k":
        source = "arXiv 2004.08955, abstract"
    published = Published(None, None, None, *quoted, source=source) if quoted else None
    return _model(name, baseline=baseline, published=published, **more)


def _classifier(name: str, top1: float | None = None) -> Model:
    """A classifier with the published weights of its network, or with a quoted accuracy alone."""
    more: dict[str, Any] = {"initial_weights": "", "statistics": CLASSIFIER}
    if network := CLASSIFIERS.get(name.removeprefix("classify_")):
        more |= {"weights": network.name, "measured": network.measured(network.crop)}
        more["published"] = Published(top1=network.top1, source=network.source)
    elif top1 is not None:
        source = "arXiv 2004.08955, ablation of ResNet-50-D"
        more["published"] = Published(top1=top1, source=source)
    return _model(name, **more)


def _pair(
    method: str, depth: int, resnet: Sequence[float], resnest: Sequence[float]
) -> Iterator[Model]:
    """A ResNet baseline and the same recipe on a ResNeSt, with the AP of each."""
    baseline = f"{method}_resnet{depth}_fpn"
    yield _model(baseline, *resnet)
    yield _model(f"{method}_resnest{depth}_fpn", *resnest, baseline=baseline)


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        *_pair("faster_rcnn", 50, [39.25], [42.33]),
        _model("faster_rcnn_resnest50_dcn_fpn", 44.11),
        *_pair("faster_rcnn", 101, [41.37], [44.72]),
        *_pair("cascade_rcnn", 50, [42.52], [45.41]),
        *_pair("cascade_rcnn", 101, [44.03], [47.50]),
        _model("cascade_rcnn_resnest200_fpn", 49.03),
        _model("retinanet_resnest50_fpn"),
        _model("retinanet_resnest101_fpn"),
        *_pair("mask_rcnn", 50, [39.97, 36.05], [42.81, 38.14]),
        *_pair("mask_rcnn", 101, [41.78, 37.51], [45.75, 40.65]),
        _model("mask_rcnn_resnest269_fpn"),
        _model(
            "mask_rcnn_resnest50_fpn_lsj",
            note="large-scale jitter on 1024 x 1024 pixels, 100 epochs, 64 images per step",
        ),
        _model(
            "finetune_mask_rcnn_resnest50_fpn",
            initial_weights="resnest://mask_rcnn_resnest50_fpn",
            own_data=True,
            note="for a few hundred images of your own; one image a worker is enough",
        ),
        *_pair("cascade_mask_rcnn", 50, [43.06, 37.19], [46.19, 39.55]),
        *_pair("cascade_mask_rcnn", 101, [44.79, 38.52], [48.30, 41.56]),
        _model("cascade_mask_rcnn_resnest200_fpn_3x", 50.54, 44.21),
        _model(
            "cascade_mask_rcnn_resnest200_dcn_fpn_3x",
            *(50.91, 44.50),
            note="published too: 53.3 box AP, 47.1 mask AP on test-dev2019 with several scales",
        ),
        _model("keypoint_rcnn_resnest50_fpn"),
        _model("panoptic_fpn_resnest50"),
        _model(
            "panoptic_fpn_resnest200_3x",
            *(51.00, 43.68, 47.90),
            note="Panoptic FPN with a cascade of box heads",
        ),
        _semantic("deeplabv3_resnet50_ade20k", 42.1),
        _semantic("deeplabv3_resnest50_ade20k", 45.12, 81.17, baseline="deeplabv3_resnet50_ade20k"),
        _semantic("deeplabv3_resnet101_ade20k"),
        _semantic(
            "deeplabv3_resnest101_ade20k", 46.91, 82.07, baseline="deeplabv3_resnet101_ade20k"
        ),
        _semantic("deeplabv3_resnest200_ade20k", 48.36, 82.45),
        _semantic("deeplabv3_resnest269_ade20k", 47.60, 82.62),
        _semantic("fcn_resnest50_ade20k", 42.94, 80.18),
        _semantic("deeplabv3_resnet50_pcontext"),
        _semantic(
            "deeplabv3_resnest50_pcontext", 53.19, 80.41, baseline="deeplabv3_resnet50_pcontext"
        ),
        _semantic("deeplabv3_resnet101_pcontext"),
        _semantic(
            "deeplabv3_resnest101_pcontext", 56.49, 81.91, baseline="deeplabv3_resnet101_pcontext"
        ),
        _semantic("deeplabv3_resnest200_pcontext", 58.37, 82.50),
        _semantic("deeplabv3_resnest269_pcontext", 58.92, 83.06),
        _semantic("fcn_resnest50_pcontext", 51.98, 79.19),
        _semantic("deeplabv3_resnest50_cityscapes"),
        _semantic("deeplabv3_resnest101_cityscapes"),
        _semantic("deeplabv3_resnest200_cityscapes"),
        _semantic("deeplabv3plus_resnest101_cityscapes"),
        *(_classifier(f"classify_{network}") for network in CLASSIFIERS),
        _classifier("classify_resnet50"),
        _classifier("classify_resnet50_d", 78.31),
        _classifier("classify_resnet50_d_mixup", 79.15),
        _classifier("classify_resnet50_d_autoaugment", 79.41),
    )
}
"""Every model, by name; a family's models follow each other."""


def find_model(name: str | os.PathLike) -> Model:
    """The record of a model, by its name or by the original plugin's.

    Raises:
        KeyError: no such model; the message names the nearest.
    """
    wanted = os.fspath(name).removesuffix(".yaml")
    for model in MODELS.values():
        names = (model.name, *model.aliases, *(Path(alias).name for alias in model.aliases))
        if wanted in names:
            return model
    near = difflib.get_close_matches(wanted, MODELS) or sorted(MODELS)
    raise KeyError(f"no model is named {wanted!r}. Nearest: {', '.join(near)}")


def _has_ap(model: Model, least: float) -> bool:
    ap = model.published and model.published.box_ap
    return ap is not None and ap >= least


def list_models(
    task: str | None = None, backbone: str | None = None, min_ap: float | None = None
) -> list[Model]:
    """The models that fit, in the catalog's order.

    Args:
        task: one of :data:`TASKS`.
        backbone: e.g. ``"resnest50"`` or ``"resnest50_dcn"``.
        min_ap: least published box AP, 0-100; models without a published one do not fit.

    Raises:
        ValueError: no model has such a task or backbone.
    """
    for key, value in (("task", task), ("backbone", backbone)):
        choices = sorted({getattr(model, key) for model in MODELS.values()})
        if value is not None and value not in choices:
            raise ValueError(f"{key} must be one of {', '.join(choices)}, got {value!r}")
    return [
        model
        for model in MODELS.values()
        if task in (None, model.task)
        and backbone in (None, model.backbone)
        and (min_ap is None or _has_ap(model, min_ap))
    ]


def get_config(name: str | os.PathLike, opts: Sequence[Any] = ()) -> CfgNode:
    """A model's recipe as a config; see :func:`resnest_d2.get_config`.

    Raises:
        KeyError: no such model.
    """
    return config.get_config(find_model(name).recipe, opts)


def get(
    name: str | os.PathLike, *, device: str | None = None, opts: Sequence[Any] = ()
) -> nn.Module:
    """A model with its trained weights, which are downloaded if needed, in evaluation mode.

    Args:
        name: see :func:`find_model`.
        device: e.g. ``"cpu"``; by default a GPU if there is one.
        opts: ``[KEY, VALUE, …]`` for its config.

    Raises:
        KeyError: no such model.
        ValueError: no trained weights were published for it.
    """
    model = find_model(name)
    if model.weights is None:
        others = [other.name for other in list_models(model.task) if other.weights]
        raise ValueError(
            f"no trained weights were published for {model.name}. Train it: "
            f"{model.train_command}. Models of the same task with weights: "
            f"{', '.join(others) or 'none'}"
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cfg = get_config(model.name, [*opts, "MODEL.DEVICE", device])
    file = fetch(model.weights)
    network = build_model(cfg).eval()
    RunCheckpointer.from_config(cfg, network, whole=True).load(str(file))
    return network

"""What is measured, named by a text: ``official:resnest50``, ``resnest50+optimized+bfloat16``."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from ..config import get_config, list_configs
from ..errors import check_choice
from ..inference import optimize_for_inference
from ..modeling import VARIANTS, ResNeSt
from ..modeling.checkpointing import checkpoint_stages, recompute_norms

__all__ = ["SETTINGS", "SOURCES", "Subject", "detector_options", "total_loss"]

SOURCES = ("", "official", "timm")
"""Whose network: this package's or Detectron2's, ``resnest==0.0.5``'s, or timm's."""

SETTINGS = {
    "channels_last": "memory format",
    "bfloat16": "autocast; of an optimised network, its arithmetic",
    "float32": "of an optimised network, where the hardware would choose bfloat16",
    "compiled": "torch.compile",
    "optimized": "optimize_for_inference",
    "recompute_norm": "RESNEST.RECOMPUTE_NORM, training",
    "checkpointed": "RESNEST.ACTIVATION_CHECKPOINTING of res2 … res5, training",
}

_RESNETS = {"resnet50": "mask_rcnn_resnet50_fpn", "resnet101": "mask_rcnn_resnet101_fpn"}
_STAGES = ("res2", "res3", "res4", "res5")


class Prepared(NamedTuple):
    """A network with its settings, its forward pass, and the call that is measured."""

    network: nn.Module
    forward: Callable[[object], object]
    call: Callable[[object], object]


class Subject:
    """A network with settings.

    Args:
        spec: ``[SOURCE:]NAME[+SETTING]…``. NAME is a ResNeSt variant (of the official package and
            timm: theirs), Detectron2's ``resnet50`` or ``resnet101``, or a packaged config: the
            whole detector. See :data:`SOURCES` and :data:`SETTINGS`.
        training: a step of training, instead of inference.
        classifier: with pooling and 1000 classes instead of feature maps; not of a ResNet.
        device: where it runs.

    Raises:
        ValueError: an unknown source, name or setting, with the choices; an optimised network in
            training.
    """

    def __init__(
        self, spec: str, *, training: bool = False, classifier: bool = False, device: str = "cpu"
    ):
        self.training = training
        self.classifier = classifier
        self.device = device
        base, *self.settings = spec.split("+")
        self.source, _, self.name = base.rpartition(":")
        check_choice(f"the source of {spec!r}", self.source, SOURCES)
        for setting in self.settings:
            check_choice(f"a setting of {spec!r}", setting, SETTINGS)
        if not self.source:
            others = () if classifier else (*_RESNETS, *list_configs())
            check_choice("a network", self.name, (*VARIANTS, *others))
        if training and "optimized" in self.settings:
            raise ValueError(f"{spec}: an optimized network cannot be trained")

    @property
    def is_detector(self) -> bool:
        return not self.source and self.name not in (*VARIANTS, *_RESNETS)

    def build(self) -> nn.Module:
        """The network as it is before the settings, in evaluation mode, with random weights.

        A detector's score threshold is 0, so that it finds as many objects as it may.

        Raises:
            ModuleNotFoundError: the source's package is not installed.
            ValueError: the source has no such network.
        """
        return self._network().to(self.device).eval()

    def prepare(self, network: nn.Module) -> Prepared:
        """Apply the settings to what :meth:`build` gave, in place or, optimised, to a copy."""
        has = self.settings.__contains__
        dtype = torch.bfloat16 if has("bfloat16") else None
        if has("recompute_norm"):
            recompute_norms(network)
        if has("checkpointed"):
            checkpoint_stages(network, _STAGES)
        if has("channels_last"):
            network.to(memory_format=torch.channels_last)
        if has("optimized"):
            chosen = torch.float32 if has("float32") else dtype
            network, dtype = optimize_for_inference(network, dtype=chosen), None
        elif has("compiled"):
            network.compile()
        kind = torch.device(self.device).type
        autocast = partial(torch.autocast, kind, dtype or torch.bfloat16, enabled=bool(dtype))
        network.train(self.training)

        def forward(inputs):
            # Detectron2's losses want a storage to log to.
            with torch.inference_mode(not self.training), autocast(), EventStorage():
                return network(inputs)

        def step(inputs):
            total_loss(forward(inputs)).backward()
            network.zero_grad()

        return Prepared(network, forward, step if self.training else forward)

    def inputs(self, batch: int, size: tuple[int, int]) -> object:
        """Random images: (N, 3, H, W), or Detectron2's list of dicts, with objects to train on."""
        height, width = size
        if not self.is_detector:
            x = torch.randn(batch, 3, height, width, device=self.device)
            if "channels_last" in self.settings:
                x = x.to(memory_format=torch.channels_last)
            return x
        images = []
        for _ in range(batch):
            image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
            images.append({"image": image, "height": height, "width": width})
            if self.training:
                images[-1]["instances"] = _objects(height, width)
        return images

    def _network(self) -> nn.Module:
        if self.source == "official":
            return _official(self.name, self.classifier)
        if self.source == "timm":
            return _timm(self.name, self.classifier)
        if self.name in VARIANTS:
            options = {"num_classes": 1000} if self.classifier else {}
            out = ("linear",) if self.classifier else ("res5",)
            return ResNeSt.from_variant(self.name, out_features=out, **options)
        config = _RESNETS.get(self.name, self.name)
        options = detector_options(self.device)
        if self.name in _RESNETS:
            options += ["MODEL.RESNETS.OUT_FEATURES", str(list(_STAGES))]
        model = build_model(get_config(config, options))
        if self.name not in _RESNETS:
            return model
        for parameter in model.parameters():
            parameter.requires_grad_(True)  # the recipe freezes the first stages
        return model.backbone.bottom_up


def detector_options(device: str) -> list[str]:
    """Options of a config for random weights that find as many objects as they may."""
    options = ["MODEL.DEVICE", device, "MODEL.WEIGHTS", ""]
    for head in ("ROI_HEADS", "RETINANET"):
        options += [f"MODEL.{head}.SCORE_THRESH_TEST", "0.0"]
    return options


def total_loss(outputs: dict[str, torch.Tensor] | torch.Tensor) -> torch.Tensor:
    """A number to go backward from: the sum of the losses, or of the feature maps' means."""
    outputs = outputs.values() if isinstance(outputs, dict) else [outputs]
    return sum(output.float().mean() for output in outputs)


def _official(name: str, classifier: bool) -> nn.Module:
    try:
        import resnest.torch as official
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "official: needs the package of the official models: pip install resnest==0.0.5"
        ) from error
    names = sorted(n for n in vars(official) if n.startswith("resnest") and n != "resnest")
    check_choice("an official network", name, [n for n in names if callable(vars(official)[n])])
    model = getattr(official, name)()
    return model if classifier else nn.Sequential(*list(model.children())[:-2])  # no pool, no fc


def _timm(name: str, classifier: bool) -> nn.Module:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("timm: needs the package timm: pip install timm") from error
    check_choice("a network of timm", name, timm.list_models("resnest*"))
    model = timm.create_model(name)
    return model if classifier else nn.Sequential(*list(model.children())[:-2])


def _objects(height: int, width: int, number: int = 8) -> Instances:
    corners = torch.rand(number, 2) * torch.tensor([width / 2, height / 2])
    sizes = (0.1 + 0.4 * torch.rand(number, 2)) * torch.tensor([width, height])
    boxes = Boxes(torch.cat([corners, corners + sizes], dim=1))
    masks = torch.zeros(number, height, width, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tensor.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return Instances(
        (height, width),
        gt_boxes=boxes,
        gt_classes=torch.zeros(number, dtype=torch.int64),
        gt_masks=BitMasks(masks),
    )

"""Networks to measure, named by texts such as ``resnest50+bfloat16`` or ``official:resnest50``."""

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

SOURCES = ("", "official", "timm")
"""Where a network comes from: this package or Detectron2, ``resnest==0.0.5``, timm."""

SETTINGS = {
    "channels_last": "memory format",
    "bfloat16": "autocast; for an optimized network, its arithmetic",
    "float32": "for an optimized network, float32 even where bfloat16 is faster",
    "compiled": "torch.compile",
    "optimized": "optimize_for_inference",
    "recompute_norm": "RESNEST.RECOMPUTE_NORM, training",
    "checkpointed": "RESNEST.ACTIVATION_CHECKPOINTING of res2 … res5, training",
}

_RESNETS = {"resnet50": "mask_rcnn_resnet50_fpn", "resnet101": "mask_rcnn_resnet101_fpn"}
_STAGES = ("res2", "res3", "res4", "res5")


class Prepared(NamedTuple):
    """A network after its settings, its forward pass, and the call that is measured."""

    network: nn.Module
    forward: Callable[[object], object]
    call: Callable[[object], object]


class Subject:
    """A network with settings.

    Args:
        spec: ``[SOURCE:]NAME[+SETTING]…``. NAME is a ResNeSt variant (of the official package and
            timm: their names), Detectron2's ``resnet50`` or ``resnet101``, or a packaged config:
            the whole model. See :data:`SOURCES` and :data:`SETTINGS`.
        training: measure a training step instead of inference.
        classifier: with pooling and 1000 classes instead of feature maps; not for a ResNet.
        device: where it runs.

    Raises:
        ValueError: an unknown source, name or setting, with the choices; an optimized network in
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
    def is_config(self) -> bool:
        """Whether it is a config's whole model, with Detectron2's inputs."""
        return not self.source and self.name not in (*VARIANTS, *_RESNETS)

    def build(self) -> nn.Module:
        """The network before its settings, in evaluation mode, with random weights.

        Raises:
            ModuleNotFoundError: the source's package is not installed.
            ValueError: the source has no such network.
        """
        if self.source:
            network = _of_another_package(self.source, self.name, self.classifier)
        elif self.name in VARIANTS:
            options = {"num_classes": 1000} if self.classifier else {}
            out = ("linear",) if self.classifier else ("res5",)
            network = ResNeSt.from_variant(self.name, out_features=out, **options)
        else:
            network = self._of_config()
        return network.to(self.device).eval()

    def _of_config(self) -> nn.Module:
        options = detector_options(self.device)
        if self.is_config:
            return build_model(get_config(self.name, options))
        options += ["MODEL.RESNETS.OUT_FEATURES", str(list(_STAGES))]
        model = build_model(get_config(_RESNETS[self.name], options))
        # The recipe freezes the first stages.
        return model.backbone.bottom_up.requires_grad_(True)

    def prepare(self, network: nn.Module) -> Prepared:
        """Apply the settings to the result of :meth:`build`: in place, or optimized to a copy."""
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
            # Detectron2's losses need an EventStorage to log to.
            with torch.inference_mode(not self.training), autocast(), EventStorage():
                return network(inputs)

        def step(inputs):
            total_loss(forward(inputs)).backward()
            network.zero_grad()

        return Prepared(network, forward, step if self.training else forward)

    def inputs(self, batch: int, size: tuple[int, int]) -> object:
        """Random images: (N, 3, H, W), or Detectron2's list of dicts, with labels to train on."""
        if not self.is_config:
            x = torch.randn(batch, 3, *size, device=self.device)
            if "channels_last" in self.settings:
                x = x.to(memory_format=torch.channels_last)
            return x
        images = [random_input(size) for _ in range(batch)]
        if self.training:
            for image in images:
                image["instances"] = _objects(*size)
                image["sem_seg"] = torch.zeros(size, dtype=torch.int64)
                image["label"] = 0
        return images


def random_input(size: tuple[int, int], original: tuple[int, int] | None = None) -> dict:
    """An image of noise, as Detectron2's models take one.

    Args:
        size: height and width, pixels.
        original: the same before resizing; by default ``size``.
    """
    height, width = original or size
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    return {"image": image, "height": height, "width": width}


def detector_options(device: str) -> list[str]:
    """Config options for random weights and as many detections as the config allows."""
    options = ["MODEL.DEVICE", device, "MODEL.WEIGHTS", ""]
    for head in ("ROI_HEADS", "RETINANET"):
        options += [f"MODEL.{head}.SCORE_THRESH_TEST", "0.0"]
    return options


def total_loss(outputs: dict[str, torch.Tensor] | torch.Tensor) -> torch.Tensor:
    """The scalar for the backward pass: the sum of the losses, or of the feature maps' means."""
    outputs = outputs.values() if isinstance(outputs, dict) else [outputs]
    return sum(output.float().mean() for output in outputs)


def _of_another_package(source: str, name: str, classifier: bool) -> nn.Module:
    """A network of the official package or of timm."""
    try:
        if source == "official":
            import resnest.torch as package
        else:
            import timm as package
    except ModuleNotFoundError as error:
        needed = "resnest==0.0.5" if source == "official" else "timm"
        raise ModuleNotFoundError(f"{source}: needs its package: pip install {needed}") from error
    if source == "official":
        found = {k for k, v in vars(package).items() if k.startswith("resnest") and callable(v)}
        check_choice("an official network", name, sorted(found))
        model = getattr(package, name)()
    else:
        check_choice("a network of timm", name, package.list_models("resnest*"))
        model = package.create_model(name)
    return model if classifier else nn.Sequential(*list(model.children())[:-2])  # no pool, no fc


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

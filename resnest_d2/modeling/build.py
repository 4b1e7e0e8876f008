"""Builds backbones from a Detectron2 config."""

import importlib
import inspect
import itertools
from functools import partial, reduce
from operator import getitem

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7

from ..errors import ArgumentError, check_choice
from .norm import NORMS, get_norm
from .resnest import ResNeSt

# argument of ResNeSt -> config key
_KEYS = {
    name: f"MODEL.RESNETS.{name.upper()}"
    for name in inspect.signature(ResNeSt).parameters
    if name not in ("in_channels", "num_classes")
}
_KEYS["freeze_at"] = "MODEL.BACKBONE.FREEZE_AT"


@BACKBONE_REGISTRY.register()
def build_resnest_backbone(cfg, input_shape: ShapeSpec) -> ResNeSt:
    """Build a :class:`ResNeSt` from ``cfg.MODEL.RESNETS`` and ``cfg.MODEL.BACKBONE.FREEZE_AT``.

    Args:
        cfg: a config that :func:`resnest_d2.add_resnest_config` was called on.
        input_shape: of the images; any number of ``channels``.

    Raises:
        KeyError: a key is missing from the config.
        ValueError: an invalid value; the message has its key and the choices.
    """
    _register_deeplab(cfg)
    arguments = {}
    for name, key in _KEYS.items():
        try:
            arguments[name] = reduce(getitem, key.split("."), cfg)
        except KeyError:
            raise KeyError(
                f"{key} is not in the config: call resnest_d2.add_resnest_config(cfg) before "
                "merging files or options"
            ) from None
    try:
        return ResNeSt(in_channels=input_shape.channels, **arguments)
    except ArgumentError as error:
        raise ValueError(f"{_KEYS.get(error.argument, error.argument)} {error.problem}") from None


def _register_deeplab(cfg) -> None:
    """Import Detectron2's DeepLab project, which registers its heads, for a config that names one.

    Not earlier: a project that has a copy of them registers the same names.
    """
    name = cfg.MODEL.SEM_SEG_HEAD.NAME
    if name in ("DeepLabV3Head", "DeepLabV3PlusHead") and name not in SEM_SEG_HEADS_REGISTRY:
        importlib.import_module("detectron2.projects.deeplab")


@BACKBONE_REGISTRY.register()
def build_resnest_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """ResNeSt under Detectron2's FPN: p2 ... p5, and p6 by a max pool."""
    return _build_fpn(cfg, build_resnest_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_resnest_retinanet_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """ResNeSt under Detectron2's FPN: p3 ... p5, and p6, p7 by convolutions on res5."""
    bottom_up = build_resnest_backbone(cfg, input_shape)
    shapes = bottom_up.output_shape()
    if "res5" not in shapes:
        raise ValueError(f"MODEL.RESNETS.OUT_FEATURES must have 'res5' for P6, P7, got {[*shapes]}")
    top_block = LastLevelP6P7(shapes["res5"].channels, cfg.MODEL.FPN.OUT_CHANNELS)
    return _build_fpn(cfg, bottom_up, top_block)


def _build_fpn(cfg, bottom_up: ResNeSt, top_block) -> FPN:
    for name in cfg.MODEL.FPN.IN_FEATURES:
        check_choice("MODEL.FPN.IN_FEATURES", name, bottom_up.output_shape())
    norm = cfg.MODEL.FPN.NORM
    check_choice("MODEL.FPN.NORM", norm, (*NORMS, "naiveSyncBN_N", "nnSyncBN", "LN"))
    if norm == "SyncBN":  # without a GPU, PyTorch's SyncBatchNorm can neither train nor be scripted
        norm = partial(get_norm, norm)
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=norm,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def meta_model(cfg, *, max_parameters: int | None = None) -> nn.Module:
    """The config's model on the ``meta`` device: names and shapes without values or memory.

    Args:
        max_parameters: the largest number of parameter tensors that is allowed, because a config
            of unknown origin may ask for any number of layers.

    Raises:
        ValueError: the model has more.
    """
    number = itertools.count(1)

    def limit(*_) -> None:
        if max_parameters is not None and next(number) > max_parameters:
            raise ValueError(f"the config asks for a model of more than {max_parameters} tensors")

    handle = register_module_parameter_registration_hook(limit)
    try:
        with torch.device("meta"):
            return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    finally:
        handle.remove()

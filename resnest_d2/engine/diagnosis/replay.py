"""Repeats a batch with a loss that was not finite, from the file that training has written.

The forward and backward pass run with the recorded weights, images and random generators, in one
process. The failure is reproduced if the same losses are not finite again. Reported are the first
module with an output that is not finite, the largest gradients, and invalid values in the inputs.
"""

import itertools
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.config import CfgNode
from detectron2.structures import PolygonMasks
from detectron2.utils.events import EventStorage

from ...checkpoint import StoredWeights
from ...checkpoint.record import check_record
from ...checkpoint.weight_files import read_content
from ...errors import check_choice
from ...model_zoo.trained import check_network, recorded_config
from ...text import printable
from ..training.trainer import Trainer
from .examples import unpack
from .non_finite import Gradient, largest_gradients, losses_before

_ENTRIES = {
    "iteration": int,
    "micro_batch": int,
    "rank": int,
    "world_size": int,
    "losses": dict,
    "error": str,
    "batch": list,
    "model": dict,
    "in_evaluation_mode": list,
    "frozen": list,
    "generators": dict,
    "device": str,
    "dtype": str,
    "record": dict,
}

_PADDED = 1 << 24  # pixels of a batch, however small its images are
_MOST_IMAGES = 512
_MOST_OBJECTS = 20_000  # of an image: each is compared with all anchors
_LONGEST = 100_000  # pixels of an outline, from the image's corner and back to it


@dataclass(frozen=True)
class Replay:
    """The result of a repetition.

    Attributes:
        then, now: the losses by name, in training and here.
        error_then, error: what the forward pass raised, "" if nothing.
        first_module: name and class of the first module, in the order of the forward pass, with an
            output that is not finite; "" if all are finite.
        inputs_finite: whether that module's inputs are.
        bad_weights: names of parameters, and of statistics in use, that are not finite.
        gradients: the largest five.
        images: of each input image its id, file, smallest and largest finite value, number of
            values that are NaN or infinite (``not_finite``), number of boxes, and by index the
            boxes that are not finite, or have no width or height (``bad_boxes``).
        synchronised: training had several processes, so that synchronised batch norms saw more
            images than this repetition.
    """

    file: str
    iteration: int
    micro_batch: int
    rank: int
    reproduced: bool
    then: dict[str, float]
    now: dict[str, float]
    error_then: str
    error: str
    first_module: str
    inputs_finite: bool
    bad_weights: list[str]
    gradients: list[Gradient]
    images: list[dict]
    synchronised: bool

    def as_dict(self) -> dict:
        """For JSON, which has no NaN: numbers that are not finite become texts."""
        return _jsonable(asdict(self))


def replay(path: str | os.PathLike, *, device: str | None = None) -> Replay:
    """Repeat the forward and backward pass of a file ``nonfinite_…pth``.

    Args:
        device: None: the kind of device that it was trained on, or the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, or not of this version.
    """
    path = Path(path)
    content = _read(path)
    cfg = _config(content, path, device)
    check_network(cfg, StoredWeights(path, content["model"], "pth", "", {}))
    try:
        return _repeat(cfg, content, path)
    except Exception as error:  # a batch of unknown origin may cause any error in a model
        raise ValueError(
            f"the batch in {path} does not go through the model of its config: "
            f"{type(error).__name__}: {printable(error, 300)}"
        ) from error


def _repeat(cfg: CfgNode, content: dict, path: Path) -> Replay:
    model = _build(cfg, content, path)
    batch = unpack(content["batch"])
    _check_batch(batch, cfg)
    bad_weights = _bad_weights(model)  # before the batch changes running statistics
    losses, error, first, inputs_finite = _forward(model, batch, content)
    now = {name: value.item() for name, value in losses.items()}
    gradients = largest_gradients(model, sum(losses.values())) if losses else []
    then = content["losses"]
    return Replay(
        file=str(path),
        iteration=content["iteration"],
        micro_batch=content["micro_batch"],
        rank=content["rank"],
        reproduced=_not_finite(then) == _not_finite(now) and bool(error) == bool(content["error"]),
        then=then,
        now=now,
        error_then=content["error"],
        error=error,
        first_module=first,
        inputs_finite=inputs_finite,
        bad_weights=bad_weights,
        gradients=gradients[:5],
        images=[_look_at(example) for example in batch],
        synchronised=content["world_size"] > 1 and "Sync" in content["record"]["config"],
    )


def _read(path: Path) -> dict:
    content = read_content(path)
    if content.get("kind") != "nonfinite":
        raise ValueError(
            f"{path} cannot be replayed: a file nonfinite_…pth is needed, which a training writes "
            "into its OUTPUT_DIR when the loss is not finite"
        )
    for name, kind in _ENTRIES.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{path} is damaged: its {name} must be a {kind.__name__}")
    for name, kind in (("losses", float), ("model", torch.Tensor), ("generators", torch.Tensor)):
        for key, value in content[name].items():
            if type(key) is not str or not isinstance(value, kind):
                raise ValueError(
                    f"{path} is damaged: its {name} must be texts and {kind.__name__}s"
                )
    check_choice(f"dtype in {path}", content["dtype"], ("", "bfloat16", "float16"))
    try:
        check_record(content["record"])
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return content


def _config(content: dict, path: Path, device: str | None) -> CfgNode:
    cfg = recorded_config(content["record"], path)
    if device is None:
        there = content["device"] == "cpu" or torch.cuda.is_available()
        device = content["device"] if there else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device is {device}, and no GPU is found")
    cfg.MODEL.DEVICE = device
    cfg.MODEL.WEIGHTS = ""
    cfg.freeze()
    return cfg


def _build(cfg: CfgNode, content: dict, path: Path) -> nn.Module:
    """The model as it was: weights, frozen parameters, norms with fixed statistics."""
    model = Trainer.build_model(cfg)
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit its config: {error}") from error
    model.train()
    fixed, frozen = set(content["in_evaluation_mode"]), set(content["frozen"])
    for name, module in model.named_modules():
        if name in fixed:
            module.training = False
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return model


def _check_batch(batch: list[dict], cfg: CfgNode) -> None:
    """Refuse a batch that no training has, and that would take more than the file's own size."""
    sizes = [example["image"].shape[-2:] for example in batch]
    own = sum(map(math.prod, sizes))
    if len(batch) > _MOST_IMAGES:
        raise ValueError(f"it has {len(batch)} images: at most {_MOST_IMAGES}")
    sides = (-(-max(sides) // 32) * 32 for sides in zip(*sizes, strict=True))
    padded = len(sizes) * math.prod(sides)
    if padded > max(_PADDED, 8 * own):
        raise ValueError(f"its images of {own} pixels in all would be padded to {padded}")
    retina = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    number = (cfg.MODEL.RETINANET if retina else cfg.MODEL.ROI_HEADS).NUM_CLASSES
    for example in batch:
        classes = example["instances"].gt_classes if "instances" in example else torch.zeros(0)
        if len(classes) > _MOST_OBJECTS:
            raise ValueError(f"an image has {len(classes)} objects: at most {_MOST_OBJECTS}")
        if ((classes < 0) | (classes >= number)).any():
            raise ValueError(f"its gt_classes must be from 0 to {number - 1}")
        masks = example["instances"].get_fields().get("gt_masks") if len(classes) else None
        outlines = itertools.chain(*masks.polygons) if isinstance(masks, PolygonMasks) else ()
        for points in outlines:  # pycocotools takes memory for each pixel of them
            steps = np.diff(points.reshape(-1, 2), axis=0, prepend=0, append=0)
            if not np.abs(steps).sum() <= _LONGEST:  # nor for NaN
                raise ValueError(f"a polygon must be shorter than {_LONGEST} pixels")


def _bad_weights(model: nn.Module) -> list[str]:
    """Names in the model's state that are not finite, without the running statistics that are not
    read in training: the batch itself may have changed them."""
    unread = {
        f"{name}.{statistic}"
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training
        for statistic in ("running_mean", "running_var")
    }
    return [
        name
        for name, value in model.state_dict().items()
        if name not in unread and value.is_floating_point() and not value.isfinite().all()
    ]


def _forward(
    model: nn.Module, batch: list[dict], content: dict
) -> tuple[dict[str, torch.Tensor], str, str, bool]:
    """Losses, the error in their place, the first module that is not finite, and its inputs."""
    found: list[tuple[str, bool]] = []

    def look(name: str) -> Callable:
        def hook(module: nn.Module, args, kwargs, output) -> None:
            if not found and not _all_finite(output):
                found.append((f"{name} ({type(module).__name__})", _all_finite((args, kwargs))))

        return hook

    handles = [
        module.register_forward_hook(look(name), with_kwargs=True)
        for name, module in model.named_modules()
        if name
    ]
    device = next(model.parameters()).device.type
    dtype = getattr(torch, content["dtype"]) if content["dtype"] else None
    torch.set_rng_state(content["generators"]["cpu"])
    if device == "cuda" and "cuda" in content["generators"]:
        torch.cuda.set_rng_state(content["generators"]["cuda"])
    error = ""
    try:
        with (
            EventStorage(content["iteration"]),
            torch.autocast(device, dtype, enabled=dtype is not None),
        ):
            losses = model(batch)
    except FloatingPointError as raised:
        losses, error = losses_before(raised), str(raised)
    finally:
        for handle in handles:
            handle.remove()
    return losses, error, *(found[0] if found else ("", True))


def _all_finite(value) -> bool:
    """Whether all floating-point numbers in (nested) outputs of a module are finite."""
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(value.detach().isfinite().all())
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_all_finite, value))
    if hasattr(value, "get_fields"):  # Instances
        return _all_finite(value.get_fields())
    if hasattr(value, "tensor"):  # Boxes, ImageList, BitMasks, Keypoints
        return _all_finite(value.tensor)
    return True


def _look_at(example: dict) -> dict:
    image = example["image"].float()
    finite = image[image.isfinite()]
    instances = example.get("instances")
    boxes = torch.zeros(0, 4)
    if instances is not None and instances.has("gt_boxes"):
        boxes = instances.gt_boxes.tensor
    bad = [i for i, box in enumerate(boxes) if not box.isfinite().all() or _is_empty(box)]
    return {
        "image_id": str(example.get("image_id", "")),
        "file_name": str(example.get("file_name", "")),
        "minimum": finite.min().item() if len(finite) else math.nan,
        "maximum": finite.max().item() if len(finite) else math.nan,
        "not_finite": image.numel() - finite.numel(),
        "boxes": len(boxes),
        "bad_boxes": {i: boxes[i].tolist() for i in bad},
    }


def _is_empty(box: torch.Tensor) -> bool:
    """Whether (x0, y0, x1, y1), or a rotated (x, y, width, height, angle), has no area."""
    width, height = (box[2], box[3]) if len(box) == 5 else (box[2] - box[0], box[3] - box[1])
    return bool(width <= 0 or height <= 0)


def _not_finite(losses: dict[str, float]) -> set[str]:
    return {name for name, value in losses.items() if not math.isfinite(value)}


def _jsonable(value):
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value

"""An estimate of the memory that a training step takes.

Weights, gradients and the optimiser's state are counted. What the forward pass keeps for the
backward pass is estimated: the model runs once on PyTorch's device ``meta``, which computes shapes
only, with an image as large as training can make it and with full sets of region proposals, and the
tensors that autograd saves are added up. Not included: temporary memory of kernels, losses,
fragmentation.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm

from ...modeling.checkpointing import recompute_norms

logger = logging.getLogger(__name__)

_NORMS = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_BOX_CASCADE_HEAD", "ROI_MASK_HEAD", "SEM_SEG_HEAD")


@dataclass(frozen=True)
class Memory:
    """Bytes of one process.

    Attributes:
        weights: parameters and buffers, twice if they are averaged.
        gradients: of the trained parameters.
        optimizer: its state.
        activations: kept for the backward pass of one micro-batch; None if unknown.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int | None

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + (self.activations or 0)


def estimate_memory(
    cfg: CfgNode, model: nn.Module, *, images: int, dtype: torch.dtype | None
) -> Memory:
    """Memory of training ``model`` with ``images`` per micro-batch and autocast to ``dtype``."""
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    weights = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    states = 2 if cfg.SOLVER.OPTIMIZER == "AdamW" else int(cfg.SOLVER.MOMENTUM > 0)
    activations = None
    try:
        activations = images * _saved_by_one_image(cfg)
    except Exception as error:  # of any kind: an estimate must not end a run
        logger.debug(f"The memory of the activations is unknown: {error}")
    if activations and dtype is not None:
        activations //= 2  # nearly all saved tensors are in half precision
    copies = 2 if cfg.MODEL_EMA.ENABLED else 1
    return Memory(copies * weights, trained, states * trained, activations)


def image_size(cfg: CfgNode) -> tuple[int, int]:
    """Height and width, pixels, of about the largest training image: of 4:3, padded, or as
    an ``ImageClassifier`` crops it.
    """
    jitter = cfg.RESNEST.JITTER
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        return (cfg.RESNEST.CLASSIFIER.TRAIN_SIZE,) * 2
    if jitter.SIZE:
        sides = (jitter.CROP or jitter.SIZE,) * 2
    else:
        longest = cfg.INPUT.MAX_SIZE_TRAIN
        short = min(max(cfg.INPUT.MIN_SIZE_TRAIN), longest)
        sides = (short, min(longest, short * 4 // 3))
    return tuple(-(-side // 32) * 32 for side in sides)


def available_memory(device: str) -> int | None:
    """Bytes available to each process on this device; None if unknown."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info()[1]
    try:
        with open("/proc/meminfo") as file:
            entries = dict(line.split(":") for line in file)
        available = int(entries["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    with contextlib.suppress(OSError, ValueError):  # a container's limit
        with open("/sys/fs/cgroup/memory.max") as file:
            available = min(available, int(file.read()))
    return available // comm.get_local_size()


def _saved_by_one_image(cfg: CfgNode) -> int:
    cfg = cfg.clone()
    cfg.defrost()
    for part in _NORMS:  # a synchronised norm would wait for the other processes
        node = cfg.MODEL[part]
        if "NORM" in node and node.NORM.endswith("SyncBN"):
            node.NORM = "BN"
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).train()
        image = torch.empty(2, 3, *image_size(cfg))  # two: a norm of a 1x1 map needs two values
    if cfg.RESNEST.RECOMPUTE_NORM:
        recompute_norms(model)
    counter = SavedTensors(model)
    for stage in cfg.RESNEST.ACTIVATION_CHECKPOINTING:
        counter.leave_out(getattr(getattr(model.backbone, "bottom_up", model.backbone), stage))
    with counter.counting():
        features = model.backbone(image)
        if hasattr(model, "head"):  # RetinaNet's
            model.head([features[name] for name in cfg.MODEL.RETINANET.IN_FEATURES])
        if hasattr(model, "proposal_generator"):
            model.proposal_generator.rpn_head([features[n] for n in cfg.MODEL.RPN.IN_FEATURES])
    total = counter.bytes / 2
    if hasattr(model, "roi_heads"):
        with counter.counting():
            _run_roi_heads(cfg, model.roi_heads, next(iter(features.values())).shape[1])
        total += counter.bytes
    return int(total)


def _run_roi_heads(cfg: CfgNode, roi_heads: nn.Module, channels: int) -> None:
    proposals = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
    foreground = max(2, int(proposals * cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION))

    def regions(count: int, part: str) -> torch.Tensor:
        side = cfg.MODEL[part].POOLER_RESOLUTION
        # requires_grad: pooled features are kept for the backward pass
        return torch.empty(count, channels, side, side, device="meta", requires_grad=True)

    box_head = roi_heads.box_head
    for head in box_head if isinstance(box_head, nn.ModuleList) else [box_head]:
        head(regions(proposals, "ROI_BOX_HEAD"))
    if cfg.MODEL.MASK_ON:
        roi_heads.mask_head.layers(regions(foreground, "ROI_MASK_HEAD"))
    if cfg.MODEL.KEYPOINT_ON:
        roi_heads.keypoint_head.layers(regions(foreground, "ROI_KEYPOINT_HEAD"))


class SavedTensors:
    """Bytes of the tensors that autograd saves in a model, without parameters and buffers."""

    def __init__(self, model: nn.Module):
        self._own = {id(t.untyped_storage()): t for t in (*model.parameters(), *model.buffers())}
        self._storages = {}
        self._inside = 0

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())

    def leave_out(self, stage: nn.Module) -> None:
        """Count only the inputs of a stage's blocks: the stage will be checkpointed."""

        def enter(module, args):
            self._add(args[0])
            self._inside += 1

        def leave(module, args, output):
            self._inside -= 1

        for block in stage.children():
            block.register_forward_pre_hook(enter)
            block.register_forward_hook(leave)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        self._storages.clear()
        with torch.autograd.graph.saved_tensors_hooks(self._add, lambda tensor: tensor):
            yield

    def _add(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if not self._inside and id(storage) not in self._own:
            self._storages[id(storage)] = storage  # held, so that no other storage gets its id
        return tensor

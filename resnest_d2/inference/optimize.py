"""A trained model made faster on the machine that it runs on.

Batch norms are folded (:mod:`.fold`). The parts that map tensors to tensors (backbone with FPN,
convolutions of the heads) run channels_last, in bfloat16 where it is faster, and compiled with
constant weights. On a CPU, split attention (:mod:`.compiled_attention`), ROI align
(:mod:`.pooling`) and in float32 large 3x3 convolutions (:mod:`.winograd`) are replaced. Everything
between the parts, from anchors to the last NMS, remains Detectron2's code in float32, and so do the
layers whose outputs are ranked: in bfloat16 many of them are equal, and which is best is chance.
"""

import copy
import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from detectron2.modeling import FPN, GeneralizedRCNN, RetinaNet, SemanticSegmentor
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.utils.env import TORCH_VERSION

from ..errors import ArgumentError
from ..hardware import has_fast_bfloat16
from ..modeling import ImageClassifier
from .compiled_attention import replace_attention
from .fold import fold_batch_norms
from .pooling import replace_poolers
from .winograd import replace_convolutions

logger = logging.getLogger(__name__)

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def optimize_for_inference(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    compile: bool = True,
    channels_last: bool = True,
) -> nn.Module:
    """A faster copy of a model for inference: same inputs, same outputs.

    Each part is compiled when it first runs, for images of all sizes; the log has the time. Where
    compiling fails (for example without a C++ compiler) the part runs uncompiled, and the log has
    the reason.

    Args:
        model: a model of Detectron2 (``GeneralizedRCNN``, ``PanopticFPN``, ``RetinaNet``,
            ``SemanticSegmentor``), an ``ImageClassifier``, or a module that maps tensors to
            tensors, such as a backbone. It is not changed.
        dtype: of the parts; by default bfloat16 where it is faster on the model's device, else the
            dtype of the model. Results of a model of Detectron2 are float32 in any case.
        compile: compile the parts with ``torch.compile``.
        channels_last: memory format of weights and feature maps.

    Returns:
        The copy, in evaluation mode. It cannot be trained, saved or copied: keep ``model``.

    Raises:
        ArgumentError: ``dtype`` is no floating point type, or float16 on a CPU.
    """
    device = next(model.parameters()).device
    own = next(model.parameters()).dtype
    if dtype is None:
        dtype = torch.bfloat16 if own == torch.float32 and has_fast_bfloat16(device.type) else own
    if dtype not in _DTYPES or (dtype == torch.float16 and device.type == "cpu"):
        allowed = ", ".join(map(str, _DTYPES))
        raise ArgumentError("dtype", f"must be one of {allowed} (float16: on a GPU), got {dtype}")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    folded = fold_batch_norms(model)
    parts = list(_parts(model))
    replaced = []
    if device.type == "cpu":
        replaced.append(f"{replace_poolers(model)} ROI poolers")
        replaced.append(f"{replace_attention(model)} attention layers")
        if dtype == own == torch.float32:
            number = sum(replace_convolutions(part.module) for part in parts)
            replaced.append(f"{number} convolutions by Winograd's")
    compiled = [part.name for part in parts if compile and _compiles_for_all_sizes(part)]
    for part in parts:
        lower = torch.finfo(dtype).bits < torch.finfo(own).bits
        exact = [
            (module, name, copy.deepcopy(layer))
            for module in part.module.modules()
            for name, layer in module.named_children()
            if lower and name in part.exact
        ]
        part.module.to(dtype=dtype)
        for module, name, layer in exact:
            setattr(module, name, _InOwnDtype(layer))
        if channels_last:
            part.module.to(memory_format=torch.channels_last)
        run = _Run(part, dtype, own, compile=part.name in compiled, channels_last=channels_last)
        setattr(part.module, part.method, run)
    logger.info(
        f"optimised for inference in {str(dtype).removeprefix('torch.')}: {folded} batch norms "
        f"folded, replaced: {', '.join(replaced) or 'none'}; parts: "
        f"{', '.join(part.name for part in parts)}; "
        f"compiled at their first image: {', '.join(compiled) or 'none'}"
    )
    if compile and len(compiled) < len(parts):
        others = ", ".join(part.name for part in parts if part.name not in compiled)
        logger.warning(f"PyTorch {torch.__version__} would compile the {others} for each size anew")
    return model


class _InOwnDtype(nn.Module):
    """A layer that converts its input to the dtype of its weights."""

    def __init__(self, of: nn.Module):
        super().__init__()
        self.of = of

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.of(x.to(self.of.weight.dtype))


class _Part(NamedTuple):
    """A method of a module that maps tensors to tensors.

    For a model of Detectron2, which gets images of many sizes, one graph is compiled for all sizes.
    Any other network is compiled for its first size, which is faster for small images, and for all
    sizes when a second size comes.
    """

    name: str
    module: nn.Module
    method: str = "forward"
    of_boxes: bool = False  # the items of its input are boxes, not images
    any_size: bool = True
    exact: tuple[str, ...] = ()  # names of layers that keep their dtype


def _parts(model: nn.Module) -> Iterator[_Part]:
    if not isinstance(model, (GeneralizedRCNN, RetinaNet, SemanticSegmentor, ImageClassifier)):
        yield _Part(type(model).__name__, model, any_size=False)
        return
    yield _Part("backbone", model.backbone)
    if isinstance(model, ImageClassifier):
        return
    if isinstance(model, RetinaNet):
        yield _Part("head", model.head)
        return
    if isinstance(model, SemanticSegmentor):
        yield _Part("semantic head", model.sem_seg_head, exact=("predictor",))
        return
    head = getattr(model.proposal_generator, "rpn_head", None)
    if head is not None:
        yield _Part("RPN head", head, exact=("objectness_logits", "anchor_deltas"))
    box_head = getattr(model.roi_heads, "box_head", None)
    if isinstance(box_head, nn.ModuleList):
        for stage, head in enumerate(box_head, 1):
            yield _Part(f"box head {stage}", head, of_boxes=True)
    elif box_head is not None:
        yield _Part("box head", box_head, of_boxes=True)
    for name in ("mask", "keypoint"):
        head = getattr(model.roi_heads, f"{name}_head", None)
        if hasattr(head, "layers"):
            yield _Part(f"{name} head", head, "layers", of_boxes=True)
    if isinstance(getattr(model, "sem_seg_head", None), SemSegFPNHead):
        yield _Part("semantic head", model.sem_seg_head, "layers", exact=("predictor",))


def _compiles_for_all_sizes(part: _Part) -> bool:
    """PyTorch before 2.4 treats the sizes of FPN maps as constants."""
    return TORCH_VERSION >= (2, 4) or not isinstance(part.module, FPN)


class _Run:
    """A part, run in another dtype and compiled at its first call."""

    def __init__(
        self, part: _Part, dtype: torch.dtype, own: torch.dtype, *, compile, channels_last
    ):
        self.part = part
        run = getattr(part.module, part.method)

        def to(value: Any, dtype: torch.dtype, *, channels_last: bool = False) -> Any:
            if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
                return value
            if channels_last and value.dim() == 4:
                return value.to(dtype, memory_format=torch.channels_last)
            return value.to(dtype)

        def call(*inputs):
            inputs = tree_map(lambda value: to(value, dtype, channels_last=channels_last), inputs)
            return tree_map(lambda value: to(value, own), run(*inputs))

        # Each part needs its own code object: Dynamo limits the number of graphs for each.
        call.__code__ = call.__code__.replace(co_name=f"run_{part.name.replace(' ', '_')}")
        self.uncompiled = call
        self.compiled = torch.compile(call, fullgraph=True) if compile else None
        self.called = self.limited = False

    @torch.no_grad()
    def __call__(self, *inputs):
        tensors = [value for value in tree_leaves(inputs) if isinstance(value, torch.Tensor)]
        # A graph compiled for 0 boxes or for 1 is valid for no other number.
        few = self.part.of_boxes and min(map(len, tensors), default=0) < 2
        if self.compiled is None or few:
            return self.uncompiled(*inputs)
        if self.part.any_size:
            for value in tensors:
                for dim in range(value.dim()):
                    if dim != 1 and value.shape[dim] > 1:  # all sizes, not all channels
                        torch._dynamo.maybe_mark_dynamic(value, dim)
        # The C++ wrapper saves a backbone 3 ms a call, but takes longer to compile: not worth it
        # for a whole model. These are no options of torch.compile, because Dynamo reads "freezing"
        # before they are applied.
        from_cpp = not self.part.any_size and tensors[0].device.type == "cpu"
        with torch._inductor.config.patch(freezing=True, cpp_wrapper=from_cpp):
            if not self.called:
                return self._first_call(inputs)
            try:
                return self.compiled(*inputs)
            except _limit_error() as error:  # sizes that no graph is for; others stay compiled
                if not self.limited:
                    cause = str(error).partition("\n")[0]
                    logger.warning(f"the {self.part.name} runs uncompiled at more sizes: {cause}")
                self.limited = True
                return self.uncompiled(*inputs)

    def _first_call(self, inputs: tuple):
        start = time.perf_counter()
        try:
            outputs = self.compiled(*inputs)
        except Exception as error:  # Dynamo, Inductor, C++ compiler and Triton raise many kinds
            cause = str(error).strip().partition("\n")[0]
            name = self.part.name
            logger.warning(f"the {name} runs uncompiled: {type(error).__name__}: {cause}")
            self.compiled = None
            return self.uncompiled(*inputs)
        self.called = True
        logger.info(f"compiled the {self.part.name} in {time.perf_counter() - start:.0f} s")
        return outputs


def _limit_error() -> type[Exception]:
    """What PyTorch raises when a function has had its 8 graphs."""
    errors = torch._dynamo.exc
    return getattr(errors, "FailOnRecompileLimitHit", errors.Unsupported)

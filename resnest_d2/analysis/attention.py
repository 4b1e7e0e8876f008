"""How a network's blocks divide their weight between the splits: split attention, recorded.

Split attention (arXiv 2004.08955, section 3.1) gives each channel of each split a weight that
depends on the image, and over the splits a channel's weights sum to one. With one split (radix 1)
there is nothing to divide: the weight is a gate between 0 and 1, as in squeeze-and-excitation.

Weights and maps are read by hooks on the layers that every way through a block calls, so that a
model stays as it is, deformable, checkpointed and recomputing ones too.
"""

import contextlib
import os
import random
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data import register_coco
from ..errors import check_choice
from ..files import writing
from ..modeling.split_attention import SplitAttentionConv2d, radix_softmax
from ..progress import progress_bar

if TYPE_CHECKING:
    from ..predict.predictor import Predictor

__all__ = [
    "NO_ATTENTION",
    "BlockAttention",
    "ClassAttention",
    "attention_by_class",
    "image_attention",
    "record_attention",
    "save_attention",
]

NO_ATTENTION = (
    "there is no attention to show: the network has no split attention (radix 0, a ResNet), or its "
    "blocks did not run (a compiled model calls no hooks)"
)

_BLOCK = re.compile(r"(?:.*\.)?(res\d+\.\d+)\.conv2")


@dataclass(frozen=True)
class BlockAttention:
    """What the split attention of one block did in a forward pass of N images.

    Attributes:
        weights: float32 (N, R, C), what part of each split enters each channel; sums to one over
            R for R > 1, a gate in 0-1 for R = 1.
        splits: float32 (N, R, C, h, w), what is weighted, after norm and ReLU; None unless asked
            for.
    """

    weights: np.ndarray
    splits: np.ndarray | None = None

    @property
    def radix(self) -> int:
        """R, the number of splits."""
        return self.weights.shape[1]

    @property
    def selectivity(self) -> np.ndarray:
        """(N, C): 0 where all splits weigh the same, 1 where one split has all of the weight.

        In between, it is linear in the largest weight. A gate is 0 half open, 1 open or closed.
        """
        weights = self.weights
        if self.radix == 1:
            weights = np.concatenate([weights, 1 - weights], axis=1)
        equal = 1 / weights.shape[1]
        return (weights.max(axis=1) - equal) / (1 - equal)

    @property
    def fused(self) -> np.ndarray | None:
        """(N, C, h, w), the weighted sum of the splits: what the block's convolution gives."""
        if self.splits is None:
            return None
        return np.einsum("nrc,nrchw->nchw", self.weights, self.splits)


@contextlib.contextmanager
def record_attention(
    model: nn.Module, *, maps: Collection[str] = ()
) -> Iterator[dict[str, BlockAttention]]:
    """Record the split attention of the forward passes inside the ``with``::

        with record_attention(model) as blocks:
            model(inputs)
        blocks["res4.1"].weights

    The model's outputs and gradients stay what they are, and its hooks go away at the end. Of
    several forward passes, the last is kept. A compiled model calls no hooks: nothing is recorded.

    Args:
        model: a detector, a backbone, or anything else with split attention in it.
        maps: blocks of which the splits are kept too; they are as large as feature maps.

    Yields:
        By block, in the network's order; empty until the model has run.

    Raises:
        ArgumentError: ``maps`` names no block of the model, with those that there are.
    """
    modules = _split_attentions(model)
    for name in maps:
        check_choice("block", name, modules)
    splits: dict[str, np.ndarray] = {}
    blocks: dict[str, BlockAttention] = {}

    def keep_splits(name: str, attention: SplitAttentionConv2d, _, inputs, normed) -> None:
        values = F.relu(normed.detach().float())  # (N, R*C, h, w)
        splits[name] = values.unflatten(1, (attention.radix, -1)).cpu().numpy()

    def keep_weights(name: str, attention: SplitAttentionConv2d, _, inputs, logits) -> None:
        weights = radix_softmax(logits.detach().float(), attention.radix, attention.num_groups)
        blocks[name] = BlockAttention(weights.flatten(2).cpu().numpy(), splits.pop(name, None))

    with contextlib.ExitStack() as hooks:
        for name, module in modules.items():
            layers = {module.fc2: keep_weights}
            if name in maps:
                layers[module.bn0] = keep_splits
            for layer, keep in layers.items():
                hook = layer.register_forward_hook(partial(keep, name, module))
                hooks.callback(hook.remove)
        yield blocks


@dataclass(frozen=True)
class ClassAttention:
    """The split attention over a data set, by the classes that an image holds.

    Attributes:
        class_names: of the data set, K.
        holds: bool (N, K), which classes each image holds.
        weights: by block, float32 (N, R, C), of each image.
    """

    class_names: list[str]
    holds: np.ndarray
    weights: dict[str, np.ndarray]

    @property
    def num_images(self) -> np.ndarray:
        """(K,): images that hold the class."""
        return self.holds.sum(axis=0)

    def mean(self, block: str) -> np.ndarray:
        """(K, R, C): the mean weights over the images that hold a class, NaN where none does."""
        sums = np.einsum("nk,nrc->krc", self.holds, self.weights[block], dtype=np.float64)
        count = np.where(self.num_images, self.num_images, np.nan)
        return sums / count[:, None, None]

    def deviation(self, block: str) -> np.ndarray:
        """(K,): how far a class' mean weights are from those of all images, mean over channels."""
        overall = self.weights[block].mean(axis=0, dtype=np.float64)
        return abs(self.mean(block) - overall).mean(axis=(1, 2))

    def chance(self, block: str) -> np.ndarray:
        """(K,): the deviation to expect of as many images drawn at random, without replacement."""
        # The mean of n of N values has the variance s² (1/n - 1/N), and the mean distance of a
        # normal variable from its mean is sqrt(2/pi) standard deviations.
        spread = self.weights[block].std(axis=0, ddof=1, dtype=np.float64).mean()
        with np.errstate(divide="ignore"):
            variance = 1 / self.num_images - 1 / len(self.holds)
        return np.where(self.num_images, spread * np.sqrt(2 / np.pi * variance), np.nan)

    def ratio(self, block: str) -> np.ndarray:
        """(K,): the deviation in multiples of chance; NaN for a class of no or of all images."""
        deviation, chance = self.deviation(block), self.chance(block)
        return np.divide(deviation, chance, out=np.full_like(chance, np.nan), where=chance > 0)

    def save(self, file: str | os.PathLike) -> None:
        """Write it as a numpy archive (``.npz``).

        Its keys: ``class_names`` and ``num_images`` (K,), ``blocks``, their names in order; for
        each, by class, ``NAME.mean`` (K, R, C), ``NAME.deviation`` and ``NAME.chance`` (K,), and of
        all images ``NAME.overall`` (R, C).
        """
        arrays = {}
        for block, weights in self.weights.items():
            arrays[f"{block}.mean"] = self.mean(block)
            arrays[f"{block}.deviation"] = self.deviation(block)
            arrays[f"{block}.chance"] = self.chance(block)
            arrays[f"{block}.overall"] = weights.mean(axis=0)
        names = {"class_names": self.class_names, "blocks": list(self.weights)}
        with writing(file) as archive:
            np.savez_compressed(archive, num_images=self.num_images, **names, **arrays)


def attention_by_class(
    predictor: "Predictor", data: tuple[str, str], *, num_images: int = 200
) -> ClassAttention:
    """Record the split attention for the images of a data set.

    Args:
        data: (COCO json file, image folder).
        num_images: at most so many, at least 2, drawn by a fixed seed.

    Raises:
        FileNotFoundError, ValueError: as :func:`resnest_d2.data.check_coco_json` does; a network
            without split attention.
    """
    name = register_coco(*data)
    class_names = MetadataCatalog.get(name).thing_classes
    records = DatasetCatalog.get(name)
    if min(num_images, len(records)) < 2:
        raise ValueError(
            f"means by class need 2 images or more, got num_images {num_images} and "
            f"{len(records)} in {data[0]}"
        )
    records = random.Random(0).sample(records, min(num_images, len(records)))
    holds = np.zeros((len(records), len(class_names)), dtype=bool)
    weights: dict[str, list[np.ndarray]] = {}
    for image, record in enumerate(progress_bar(records, desc="attention")):
        holds[image, [annotation["category_id"] for annotation in record["annotations"]]] = True
        inputs = predictor.preprocess(record["file_name"])
        for block, attention in image_attention(predictor.model, inputs).items():
            weights.setdefault(block, []).append(attention.weights)
    if not weights:
        raise ValueError(NO_ATTENTION)
    return ClassAttention(
        class_names, holds, {block: np.concatenate(own) for block, own in weights.items()}
    )


def image_attention(
    model: nn.Module, inputs: dict, *, maps: Collection[str] = ()
) -> dict[str, BlockAttention]:
    """Record the split attention of a detector for one image; its heads do not run.

    Args:
        inputs: as Detectron2's models take them, for one image.
        maps: see :func:`record_attention`.

    Returns:
        By block; empty where the network has no split attention.
    """
    with torch.no_grad(), record_attention(model, maps=maps) as blocks:
        model.backbone(model.preprocess_image([inputs]).tensor)
    return blocks


def save_attention(blocks: dict[str, BlockAttention], file: str | os.PathLike) -> None:
    """Write weights and maps as a numpy archive (``.npz``).

    Its keys: ``blocks``, their names in order; for each ``NAME.weights`` (N, R, C) and, where maps
    were kept, ``NAME.splits`` (N, R, C, h, w).
    """
    arrays = {f"{name}.weights": block.weights for name, block in blocks.items()}
    arrays |= {f"{n}.splits": b.splits for n, b in blocks.items() if b.splits is not None}
    with writing(file) as archive:
        np.savez_compressed(archive, blocks=list(blocks), **arrays)


def _split_attentions(model: nn.Module) -> dict[str, SplitAttentionConv2d]:
    """By block, such as "res4.1", or by the module's path where that says too little."""
    found = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, SplitAttentionConv2d)
    }
    names = [_BLOCK.sub(r"\1", path) for path in found]
    return found if len(set(names)) < len(found) else dict(zip(names, found.values(), strict=True))

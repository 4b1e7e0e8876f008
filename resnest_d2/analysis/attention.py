"""Split attention, recorded: how the blocks of a network divide their weight between the splits.

Split attention (arXiv 2004.08955, section 3.1) gives each channel of each split a weight that
depends on the image; the weights of a channel sum to one over the splits. With one split (radix 1)
the weight is a gate between 0 and 1, as in squeeze-and-excitation.

Hooks read weights and maps from the layers that every variant of a block calls, deformable,
checkpointed and recomputing ones too. The model is not changed. A compiled model calls no hooks.
"""

import contextlib
import os
import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data import register_coco, register_label_maps
from ..data.folders.class_folders import usable_class_folders
from ..data.folders.class_sets import class_folder_files
from ..data.image_reader import read_labels
from ..errors import check_choice
from ..files import writing
from ..modeling.forward_parts import network_input
from ..modeling.split_attention import SplitAttentionConv2d, radix_softmax
from ..progress import progress_bar

if TYPE_CHECKING:
    from ..predict.predictor import Predictor

NO_ATTENTION = (
    "there is no attention to show: the network has no split attention (radix 0, a ResNet), or its "
    "blocks did not run (a compiled model calls no hooks)"
)


@dataclass(frozen=True)
class BlockAttention:
    """The split attention of one block in a forward pass of N images.

    Attributes:
        weights: float32 (N, R, C), the weight of each split in each channel. Sums to one over R for
            R > 1; a gate in 0-1 for R = 1.
        splits: float32 (N, R, C, h, w), what is weighted, after norm and ReLU, or None.
    """

    weights: np.ndarray
    splits: np.ndarray | None = None

    @property
    def radix(self) -> int:
        return self.weights.shape[1]

    @property
    def selectivity(self) -> np.ndarray:
        """(N, C), linear in the largest weight: 0 for equal weights, 1 where one split has all.

        For a gate, 0 is half open, and 1 is open or closed.
        """
        weights = self.weights
        if self.radix == 1:
            weights = np.concatenate([weights, 1 - weights], axis=1)
        equal = 1 / weights.shape[1]
        return (weights.max(axis=1) - equal) / (1 - equal)

    @property
    def fused(self) -> np.ndarray | None:
        """(N, C, h, w), the weighted sum of the splits: the output of the block's convolution."""
        if self.splits is None:
            return None
        return np.einsum("nrc,nrchw->nchw", self.weights, self.splits)


@contextlib.contextmanager
def record_attention(
    model: nn.Module, *, maps: Collection[str] = ()
) -> Iterator[dict[str, BlockAttention]]:
    """Record the split attention of the last forward pass inside the ``with``::

        with record_attention(model) as blocks:
            model(inputs)
        blocks["res4.1"].weights

    Outputs and gradients of the model do not change.

    Args:
        model: a detector, a backbone, or any module that contains split attention.
        maps: blocks of which to keep the splits too, which are as large as feature maps.

    Yields:
        By block, in the order of the network; empty until the model has run.

    Raises:
        ArgumentError: ``maps`` has a block that the model has not.
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
    """The split attention over a data set, by the classes in each image.

    Attributes:
        class_names: of the data set, K.
        holds: bool (N, K), whether the image has an object or pixels of the class.
        weights: by block, float32 (N, R, C), of each image.
    """

    class_names: list[str]
    holds: np.ndarray
    weights: dict[str, np.ndarray]

    @property
    def num_images(self) -> np.ndarray:
        """(K,): images with the class."""
        return self.holds.sum(axis=0)

    def mean(self, block: str) -> np.ndarray:
        """(K, R, C): the mean weights over the images with a class, NaN without such images."""
        sums = np.einsum("nk,nrc->krc", self.holds, self.weights[block], dtype=np.float64)
        count = np.where(self.num_images, self.num_images, np.nan)
        return sums / count[:, None, None]

    def deviation(self, block: str) -> np.ndarray:
        """(K,): distance of a class' mean weights from those of all images, mean over channels."""
        overall = self.weights[block].mean(axis=0, dtype=np.float64)
        return abs(self.mean(block) - overall).mean(axis=(1, 2))

    def chance(self, block: str) -> np.ndarray:
        """(K,): the expected deviation of as many images drawn at random without replacement."""
        # The mean of n of N values has the variance s² (1/n - 1/N), and the mean distance of a
        # normal variable from its mean is sqrt(2/pi) standard deviations.
        spread = self.weights[block].std(axis=0, ddof=1, dtype=np.float64).mean()
        with np.errstate(divide="ignore"):
            variance = 1 / self.num_images - 1 / len(self.holds)
        return np.where(self.num_images, spread * np.sqrt(2 / np.pi * variance), np.nan)

    def ratio(self, block: str) -> np.ndarray:
        """(K,): deviation over chance; NaN for a class in no image or in all."""
        deviation, chance = self.deviation(block), self.chance(block)
        return np.divide(deviation, chance, out=np.full_like(chance, np.nan), where=chance > 0)

    def save(self, file: str | os.PathLike) -> None:
        """Write a numpy archive (``.npz``).

        Keys: ``class_names`` and ``num_images`` (K,), ``blocks``; for each block ``NAME.mean``
        (K, R, C), ``NAME.deviation`` and ``NAME.chance`` (K,), and ``NAME.overall`` (R, C), the
        mean of all images.
        """
        arrays = {"class_names": self.class_names, "num_images": self.num_images}
        arrays["blocks"] = list(self.weights)
        for block, weights in self.weights.items():
            arrays[f"{block}.mean"] = self.mean(block)
            arrays[f"{block}.deviation"] = self.deviation(block)
            arrays[f"{block}.chance"] = self.chance(block)
            arrays[f"{block}.overall"] = weights.mean(axis=0)
        with writing(file) as archive:
            np.savez_compressed(archive, **arrays)


def attention_by_class(
    predictor: "Predictor",
    data: tuple[str, str],
    *,
    num_images: int = 200,
    folder_names: Mapping[str, str] | None = None,
) -> ClassAttention:
    """Record the split attention for images of a data set, drawn with a fixed seed.

    Args:
        data: (COCO json file, image folder); for semantic segmentation (folder of label maps, image
            folder), for classification ("", folder of class folders).
        num_images: how many at most, at least 2.
        folder_names: names of the classes by class folder, where these differ.

    Raises:
        FileNotFoundError, ValueError: as :func:`resnest_d2.data.check_coco_json` or
            :func:`resnest_d2.data.register_label_maps`; a network without split attention.
    """
    if predictor.classifies == bool(data[0]):
        other = f"without {data[0]}" if data[0] else "with --val-json, or --val-labels"
        architecture = predictor.cfg.MODEL.META_ARCHITECTURE
        raise ValueError(f"give --val-images {other}: the model is a {architecture}")
    if predictor.segments:
        class_names = predictor.class_names
        ignored = predictor.cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        name = register_label_maps(*data, class_names, ignore_value=ignored)
    elif predictor.classifies:
        class_names = predictor.class_names
        found = usable_class_folders(data[1], folder_names, class_names=class_names)
        files = class_folder_files(found)
        files.register()
        name = files.name
    else:
        name = register_coco(*data)
        class_names = MetadataCatalog.get(name).thing_classes
    records = DatasetCatalog.get(name)
    drawn = min(num_images, len(records))
    if drawn < 2:
        raise ValueError(
            f"means by class need 2 images or more, got num_images {num_images} and "
            f"{len(records)} in {data[0]}"
        )
    records = random.Random(0).sample(records, drawn)
    holds = np.zeros((drawn, len(class_names)), dtype=bool)
    weights: dict[str, list[np.ndarray]] = defaultdict(list)
    for image, record in enumerate(progress_bar(records, desc="attention")):
        if predictor.segments:
            present = np.unique(read_labels(record["sem_seg_file_name"]))
            present = present[present < len(class_names)]  # another value is no class
        elif predictor.classifies:
            present = [record["label"]]
        else:
            present = [annotation["category_id"] for annotation in record["annotations"]]
        holds[image, present] = True
        inputs = predictor.preprocess(record["file_name"])
        for block, attention in image_attention(predictor.model, inputs).items():
            weights[block].append(attention.weights)
    if not weights:
        raise ValueError(NO_ATTENTION)
    return ClassAttention(class_names, holds, {k: np.concatenate(v) for k, v in weights.items()})


def image_attention(
    model: nn.Module, inputs: dict, *, maps: Collection[str] = ()
) -> dict[str, BlockAttention]:
    """Record the split attention of a model by block; only the backbone runs.

    Args:
        inputs: of one image, as Detectron2's models take them.
        maps: see :func:`record_attention`.
    """
    with torch.no_grad(), record_attention(model, maps=maps) as blocks:
        model.backbone(network_input(model, inputs).tensor)
    return blocks


def save_attention(blocks: dict[str, BlockAttention], file: str | os.PathLike) -> None:
    """Write a numpy archive (``.npz``) with ``blocks``, and ``NAME.weights`` of each.

    ``NAME.splits`` is there where splits were kept.
    """
    arrays = {f"{name}.weights": block.weights for name, block in blocks.items()}
    arrays |= {f"{n}.splits": b.splits for n, b in blocks.items() if b.splits is not None}
    with writing(file) as archive:
        np.savez_compressed(archive, blocks=list(blocks), **arrays)


def _split_attentions(model: nn.Module) -> dict[str, SplitAttentionConv2d]:
    """By block, such as "res4.1"; by the module's path where two blocks have the same name."""
    found = {k: m for k, m in model.named_modules() if isinstance(m, SplitAttentionConv2d)}
    names = [re.sub(r"(?:.*\.)?(res\d+\.\d+)\.conv2", r"\1", path) for path in found]
    return found if len(set(names)) < len(found) else dict(zip(names, found.values(), strict=True))

"""From an annotated image to a training example: our reader, Detectron2's mapper, scale jitter.

Detectron2's ``DatasetMapper`` cannot be given another reader. :class:`ImageMapper` has its own
``__call__``, as Detectron2's tutorial on data loading recommends; the rest is Detectron2's.

Jitter (Ghiasi et al., arXiv 2012.07177) shows objects at scales from a tenth to twice the image's
and pays off in long schedules. Detectron2's LazyConfig baselines use its two steps, but no YAML key
of Detectron2 does: ``RESNEST.JITTER`` is that key.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import (
    build_augmentation,
    check_image_size,
    convert_PIL_to_numpy,
    transform_proposals,
)

from ..image_reader import load_image, read_mask
from ..intensity import Intensity
from .class_images import ClassMapper


class ImageMapper(DatasetMapper):
    """Detectron2's mapper with :mod:`..image_reader`, by this rule of :class:`..Intensity`."""

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        intensity_rule: str = "type",
        intensity_range: Sequence[float] = (),
        **kwargs,
    ):
        super().__init__(is_train, **kwargs)
        self.intensity = Intensity(intensity_rule, tuple(intensity_range))

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        intensity = Intensity.from_config(cfg)
        return {
            **super().from_config(cfg, is_train),
            "intensity_rule": intensity.rule,
            "intensity_range": intensity.range,
        }

    def __call__(self, dataset_dict: Mapping) -> dict:
        example = copy.deepcopy(dataset_dict)
        mode = "RGBA" if self.image_format == "RGBA" else "RGB"
        image, _ = load_image(example["file_name"], self.intensity, mode)
        image = convert_PIL_to_numpy(image, self.image_format)
        check_image_size(example, image)
        mask = example.pop("sem_seg_file_name", None)
        inputs = T.AugInput(image, sem_seg=None if mask is None else read_mask(mask))
        transforms = self.augmentations(inputs)
        shape = inputs.image.shape[:2]  # (h, w)
        example["image"] = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        if inputs.sem_seg is not None:
            example["sem_seg"] = torch.as_tensor(inputs.sem_seg.astype("long"))
        if self.proposal_topk is not None:
            transform_proposals(example, shape, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            example.pop("annotations", None)
        elif "annotations" in example:
            self._transform_annotations(example, transforms, shape)
        return example


def build_train_mapper(cfg: CfgNode) -> ImageMapper | ClassMapper:
    """The mapper for training, with the jitter of ``RESNEST.JITTER`` where its ``SIZE`` is not 0.

    With jitter no image has more than ``CROP`` x ``CROP`` pixels. What the crop leaves of an object
    gets a box as tight as its mask, where there are masks. A ``SemanticSegmentor`` gets images of
    ``CROP`` x ``CROP``, padded with black, and label maps padded with the ignored value. An
    ``ImageClassifier`` gets random crops, see :mod:`.class_images`.

    Raises:
        ValueError: see :func:`check_jitter`.
    """
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        return ClassMapper(cfg, is_train=True)
    check_jitter(cfg)
    size = cfg.RESNEST.JITTER.SIZE
    if not size:
        return ImageMapper(cfg, is_train=True)
    arguments = ImageMapper.from_config(cfg, is_train=True)
    _resize, *flip = build_augmentation(cfg, is_train=True)
    crop = cfg.RESNEST.JITTER.CROP or size
    # Small images of detectors are padded where a batch is made of them: padded here, masks in run
    # lengths would be padded with the value that a label map has for "ignore", as object.
    pad = cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor"
    ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    arguments["augmentations"] = [
        _ResizeScale(*cfg.RESNEST.JITTER.SCALE, target_height=size, target_width=size),
        T.FixedSizeCrop((crop, crop), pad=pad, pad_value=0, seg_pad_value=ignored),
        *flip,
    ]
    arguments["recompute_boxes"] = cfg.MODEL.MASK_ON
    return ImageMapper(**arguments)


class _ResizeScale(T.ResizeScale):
    """Detectron2's, leaving a long thin image at least one pixel high and wide."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        resize = super().get_transform(image)
        height, width = max(1, resize.new_h), max(1, resize.new_w)
        return T.ResizeTransform(resize.h, resize.w, height, width, resize.interp)


def check_sizes(cfg: CfgNode) -> None:
    """Raise a ValueError, with its key, where the sizes of training images are invalid."""
    sides = cfg.INPUT.MIN_SIZE_TRAIN
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(sides) != 2:
        raise ValueError(
            "INPUT.MIN_SIZE_TRAIN must be two values, the lowest and the highest, where "
            f"INPUT.MIN_SIZE_TRAIN_SAMPLING is range, got {tuple(sides)}"
        )


def check_jitter(cfg: CfgNode) -> None:
    """Raise a ValueError, with its key, where ``RESNEST.JITTER`` is invalid."""
    size, scale = cfg.RESNEST.JITTER.SIZE, cfg.RESNEST.JITTER.SCALE
    for key in ("SIZE", "CROP"):
        if cfg.RESNEST.JITTER[key] < 0:
            raise ValueError(
                f"RESNEST.JITTER.{key} must be at least 0, got {cfg.RESNEST.JITTER[key]}"
            )
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise ValueError(f"RESNEST.JITTER.SCALE must be 0 < lowest <= highest, got {scale}")
    if size and cfg.INPUT.CROP.ENABLED:
        raise ValueError("INPUT.CROP.ENABLED must be False with RESNEST.JITTER, which crops too")

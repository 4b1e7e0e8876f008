"""From an annotated image to a training example: Detectron2's mapper, and large-scale jitter.

Jitter (Ghiasi et al., arXiv 2012.07177) shows objects at scales from a tenth to twice the image's
and pays off in long schedules. Detectron2 has its two steps, and its LazyConfig baselines use them;
no YAML key of its own asks for them, ``RESNEST.JITTER`` does.
"""

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation

__all__ = ["build_train_mapper", "check_jitter"]


def build_train_mapper(cfg: CfgNode) -> DatasetMapper:
    """The mapper for training: Detectron2's own where ``RESNEST.JITTER.SIZE`` is 0.

    With jitter no image has more than ``SIZE`` x ``SIZE`` pixels. What the crop leaves of an object
    gets a box as tight as its mask, where there are masks.

    Raises:
        ValueError: see :func:`check_jitter`.
    """
    check_jitter(cfg)
    size = cfg.RESNEST.JITTER.SIZE
    if not size:
        return DatasetMapper(cfg, is_train=True)
    arguments = DatasetMapper.from_config(cfg, is_train=True)
    _resize, *flip = build_augmentation(cfg, is_train=True)
    arguments["augmentations"] = [
        T.ResizeScale(*cfg.RESNEST.JITTER.SCALE, target_height=size, target_width=size),
        # Small images are padded where a batch is made of them. Padded here, masks in run lengths
        # would be padded with the value that a semantic map has for "ignore": as object.
        T.FixedSizeCrop(crop_size=(size, size), pad=False),
        *flip,
    ]
    arguments["recompute_boxes"] = cfg.MODEL.MASK_ON
    return DatasetMapper(**arguments)


def check_jitter(cfg: CfgNode) -> None:
    """Raise a ValueError, with its key, where ``RESNEST.JITTER`` cannot be."""
    size, scale = cfg.RESNEST.JITTER.SIZE, cfg.RESNEST.JITTER.SCALE
    if size < 0:
        raise ValueError(f"RESNEST.JITTER.SIZE must be at least 0, got {size}")
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise ValueError(f"RESNEST.JITTER.SCALE must be 0 < lowest <= highest, got {scale}")
    if size and cfg.INPUT.CROP.ENABLED:
        raise ValueError("INPUT.CROP.ENABLED must be False with RESNEST.JITTER, which crops too")

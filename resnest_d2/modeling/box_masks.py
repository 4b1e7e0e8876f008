"""Masks of large images without much memory: one mask at a time, only inside its box.

Detectron2 pastes the N masks of 28 x 28 from the mask head into N masks of the image's size at
once: 4.8 GB for 100 masks of 8000 x 6000 pixels. Here they stay unpasted (Detectron2's
``ROIMasks``), and pixels and run lengths of a mask are computed for the part of the image in its
box. They equal those of ``paste_masks_in_image`` on the CPU and pycocotools.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pycocotools.mask as mask_util
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.layers.mask_ops import _do_paste_mask
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA, PanopticFPN
from detectron2.structures import Instances, ROIMasks

_THRESHOLD = 0.5  # as Detectron2 pastes


class _Unpasted(ROIMasks):
    """``ROIMasks`` that Detectron2's ``detector_postprocess`` does not paste."""

    def __getitem__(self, item) -> "_Unpasted":
        return _Unpasted(super().__getitem__(item).tensor)

    def to_bitmasks(self, boxes, height, width, threshold=_THRESHOLD):
        return SimpleNamespace(tensor=ROIMasks(self.tensor))


class AugmentedRCNN(GeneralizedRCNNWithTTA):
    """Detectron2's detector with test-time augmentation, for :func:`unpasted_masks`."""

    unpasted = False

    def _reduce_pred_masks(self, outputs, tfms):
        masks = super()._reduce_pred_masks(outputs, tfms)  # (N, 1, M, M)
        return _Unpasted(masks[:, 0]) if self.unpasted else masks


@contextmanager
def unpasted_masks(model: nn.Module) -> Iterator[None]:
    """Inside, a detector's ``pred_masks`` are ``ROIMasks`` of its ``pred_boxes``.

    No effect on models without masks or that need them pasted (``PanopticFPN``).
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    if isinstance(model, AugmentedRCNN):
        model.unpasted = True
        try:
            yield
        finally:
            model.unpasted = False
        return
    rcnn = isinstance(model, GeneralizedRCNN) and not isinstance(model, PanopticFPN)
    if not (rcnn and getattr(model.roi_heads, "mask_on", False)):
        yield
        return
    hook = model.roi_heads.mask_head.register_forward_hook(_keep_squares)
    try:
        yield
    finally:
        hook.remove()


def _keep_squares(head: nn.Module, inputs: tuple, found: list[Instances]) -> None:
    for instances in found:
        instances.pred_masks = _Unpasted(instances.pred_masks[:, 0])  # (N, 1, M, M)


def mask_parts(instances: Instances) -> Iterator[tuple[np.ndarray, int, int]]:
    """Each mask, cropped to a rectangle that holds all of its pixels.

    Args:
        instances: on the CPU, with ``pred_boxes`` in pixels and ``ROIMasks`` as ``pred_masks``.

    Yields:
        The cropped mask, bool (h, w), and the rectangle's top and left in the image.
    """
    height, width = instances.image_size
    for square, box in zip(instances.pred_masks.tensor, instances.pred_boxes.tensor, strict=True):
        pasted, (rows, columns) = _do_paste_mask(square[None, None], box[None], height, width)
        yield (pasted[0] >= _THRESHOLD).numpy(), int(rows.start), int(columns.start)


def encode_part(part: np.ndarray, top: int, left: int, height: int, width: int) -> dict:
    """COCO's compressed run lengths of a mask that is empty outside one part.

    Args:
        part: bool (h, w), at ``top`` and ``left`` of the image.
        height, width: of the image.
    """
    # COCO counts down the columns. One empty pixel is added below each column, so that no run
    # reaches the next one. Runs that touch in the full image are joined afterwards.
    rows, columns = part.shape
    padded = np.zeros((columns, rows + 1), dtype=bool)
    padded[:, :rows] = part.T
    column, row = np.divmod(np.flatnonzero(np.diff(padded.ravel(), prepend=False)), rows + 1)
    changes = (left + column) * height + top + row
    joined = np.flatnonzero(changes[1:] == changes[:-1])
    changes = np.delete(changes, np.concatenate([joined, joined + 1]))
    counts = np.diff(changes, prepend=0, append=height * width)
    if len(counts) > 1 and not counts[-1]:  # the mask ends where the image does
        counts = counts[:-1]
    size = [height, width]
    rle = mask_util.frPyObjects({"counts": counts.tolist(), "size": size}, *size)
    return {"size": size, "counts": rle["counts"].decode()}

"""Masks inside of their boxes: the pixels and run lengths of the masks that Detectron2 pastes."""

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_util
from torch.nn.functional import interpolate

from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances, ROIMasks

from resnest_d2.evaluation.coco_evaluator import encode_masks
from resnest_d2.modeling.box_masks import encode_part, mask_parts


def _instances(boxes: torch.Tensor, squares: torch.Tensor, size: tuple[int, int]) -> Instances:
    return Instances(size, pred_boxes=Boxes(boxes), pred_masks=ROIMasks(squares))


def _random_boxes(random: np.random.Generator, number: int, size: tuple[int, int]) -> torch.Tensor:
    """Mostly small ones, clipped as Detectron2 clips them; the first is the image."""
    sides = np.array(size[::-1])
    start = random.uniform(-0.1, 1, (number, 2)) * sides
    end = start + random.random((number, 2)) ** 3 * 1.3 * sides
    boxes = Boxes(torch.tensor(np.concatenate([start, end], axis=1), dtype=torch.float32))
    boxes.tensor[0] = torch.tensor([0, 0, *sides])
    boxes.clip(size)
    return boxes[boxes.nonempty()].tensor


def _squares(number: int) -> torch.Tensor:
    """Full, empty, noise, and blobs with and without holes."""
    squares = interpolate(torch.rand(number, 1, 5, 5), size=(28, 28), mode="bilinear")[:, 0]
    squares[0], squares[1:2], squares[2:5] = 1, 0, torch.rand(28, 28)
    return squares


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 2), (37, 90), (120, 64)])
def test_run_lengths_in_boxes_are_those_of_the_whole_pasted_masks(size):
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    for _ in range(10):
        boxes = _random_boxes(random, 30, size)
        squares = _squares(len(boxes))
        pasted = paste_masks_in_image(squares, Boxes(boxes), size).numpy().astype(np.uint8)
        expected = mask_util.encode(np.asfortranarray(pasted.transpose(1, 2, 0)))
        _others, rles = encode_masks(_instances(boxes, squares, size))
        assert [r["counts"].encode() for r in rles] == [r["counts"] for r in expected]
        assert [r["size"] for r in rles] == [list(size)] * len(boxes)


def test_thousands_of_small_masks_are_encoded_as_the_whole_pasted_ones():
    torch.manual_seed(0)
    start = torch.rand(2000, 2) * 60
    boxes = torch.cat([start, start + 0.01 + torch.rand(2000, 2) * 4], dim=1)  # ends within 64
    squares = torch.rand(2000, 28, 28)
    pasted = paste_masks_in_image(squares, Boxes(boxes), (64, 64))
    _others, rles = encode_masks(_instances(boxes, squares, (64, 64)))
    decoded = mask_util.decode(rles).transpose(2, 0, 1)
    np.testing.assert_array_equal(decoded, pasted)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (2, 0), (0, 3), (2, 3)])
def test_a_part_is_encoded_at_its_place_in_the_image(top, left):
    random = np.random.default_rng(top + left)
    for density in (0, 0.1, 0.5, 0.9, 1):
        whole = np.zeros((7, 9), dtype=np.uint8, order="F")
        part = whole[top:, left:]
        part[:] = random.random(part.shape) < density
        expected = mask_util.encode(whole)
        rle = encode_part(part.astype(bool), top, left, 7, 9)
        assert rle == {**expected, "counts": expected["counts"].decode()}


def test_a_mask_of_a_large_image_takes_no_more_than_its_box():
    size = (600_000, 800_000)  # 480 GB, were it pasted
    boxes = torch.tensor([[500_000.0, 400_000, 500_020, 400_030]])
    instances = _instances(boxes, torch.ones(1, 28, 28), size)
    ((part, top, left),) = mask_parts(instances)
    assert part.size < 2000
    assert (top, left) == (399_999, 499_999)
    assert part.sum() == 600

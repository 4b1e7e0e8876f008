"""Batches from data workers: the same values, in one shared memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from resnest_d2.data.batches.packing import pack, unpack
from resnest_d2.data.batches.worker_errors import CheckedLoader, hand_over

VALUES = {
    "image": torch.arange(60, dtype=torch.uint8).view(3, 4, 5),
    "other strides": torch.arange(12).view(3, 4).T,
    "empty": torch.empty(0, 4),
    "scalar": torch.tensor(2.5),
    "no dtype of numpy's": torch.ones(3).bfloat16(),
    "with a gradient": torch.ones(2, requires_grad=True),
}


@pytest.mark.parametrize("name", VALUES)
def test_tensors_arrive_as_they_were(name):
    (arrived,) = unpack(pack([VALUES[name]]))
    assert torch.equal(arrived, VALUES[name]) and arrived.dtype == VALUES[name].dtype
    assert arrived.requires_grad == VALUES[name].requires_grad


def test_a_batch_without_a_tensor_arrives():
    assert unpack(pack([{"file_name": "a.jpg"}, None])) == [{"file_name": "a.jpg"}, None]
    assert unpack(pack([])) == []


def example(index: int) -> dict:
    objects = Instances(
        (8, 9),
        gt_boxes=Boxes(torch.full((2, 4), float(index))),
        gt_masks=BitMasks(torch.eye(8, 9).bool().expand(2, 8, 9)),
    )
    polygons = PolygonMasks([[np.arange(6.0) + index], [np.arange(8.0)]])
    return {"image": torch.full((3, 8, 9), index), "instances": objects, "polygons": polygons}


class Examples(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return example(index)


def test_batches_of_a_worker_equal_those_without_one():
    def batches(workers):
        loader = DataLoader(Examples(), batch_size=3, collate_fn=hand_over, num_workers=workers)
        return list(CheckedLoader(loader))

    shared = Path("/proc/self/maps").read_text().count("/torch_")
    ours = batches(1)
    assert Path("/proc/self/maps").read_text().count("/torch_") == shared + len(ours)
    for mine, expected in zip(sum(ours, []), sum(batches(0), []), strict=True):
        assert torch.equal(mine["image"], expected["image"])
        objects, others = mine["instances"], expected["instances"]
        assert torch.equal(objects.gt_boxes.tensor, others.gt_boxes.tensor)
        assert torch.equal(objects.gt_masks.tensor, others.gt_masks.tensor)
        for a, b in zip(mine["polygons"].polygons, expected["polygons"].polygons, strict=True):
            assert np.array_equal(a[0], b[0])
        mine["image"].add_(1)  # as an augmentation in the trainer may

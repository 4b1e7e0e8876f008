"""Counts of parameters and multiply-adds, against counting by hand."""

import pytest
import torch
from segmentors import small_segmentor
from torch import nn

from resnest_d2 import ResNeSt
from resnest_d2.benchmark import count_multiply_adds, count_params, measure_latency
from resnest_d2.modeling.deform_conv import DeformConv2d


def test_convolutions_and_linear_layers_count_and_nothing_else():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1),  # 8·5·6 values of 27 products
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1, groups=4),  # 8·5·6 values of 2
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ).eval()
    expected = 8 * 5 * 6 * 27 + 8 * 5 * 6 * 2 + 80
    assert count_multiply_adds(network, torch.zeros(1, 3, 10, 12)) == expected
    assert count_multiply_adds(network, torch.zeros(2, 3, 10, 12)) == 2 * expected
    assert count_params(network) == (8 * 27 + 8) + 16 + (8 * 2 + 8) + (80 + 10)


def test_a_deformable_convolution_counts_like_a_plain_one():
    class Deformed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = DeformConv2d(4, 6, 3, padding=1, groups=2, bias=False)

        def forward(self, x):
            return self.conv(x, x.new_zeros(x.shape[0], 18, *x.shape[2:]))

    plain = nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False)
    image = torch.zeros(2, 4, 5, 7)
    assert count_multiply_adds(Deformed(), image) == count_multiply_adds(plain, image)


def test_a_model_of_detectron2_counts_all_that_it_runs():
    class OfPixels(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.backbone, self.head = model.backbone, model.sem_seg_head

        def forward(self, x):
            return self.head(self.backbone(x))[0]

    model = small_segmentor("Detectron2's DeepLabV3+")
    expected = count_multiply_adds(OfPixels(model), torch.zeros(2, 3, 64, 96))
    images = [{"image": torch.zeros(3, 64, 96), "height": 200, "width": 300} for _ in range(2)]
    assert count_multiply_adds(model, images) == expected > 0
    assert count_multiply_adds(model, images[:1]) == expected / 2


@pytest.mark.parametrize("name", ["resnest14", "resnest50_fast_2s2x40d"])
def test_counts_are_those_of_the_official_models(name, facts):
    network = ResNeSt.from_variant(name, num_classes=1000, out_features=("linear",)).eval()
    known = facts("backbones")["models"][name]
    assert count_params(network) == known["params_with_1000_fc"]
    image = torch.zeros(1, 3, 224, 224)
    assert count_multiply_adds(network, image) == known["conv_linear_macs_224"]


def test_latency_is_of_the_runs_after_the_warm_up():
    calls = []
    times = measure_latency(lambda: calls.append(None), runs=3, warmup=2)
    assert (len(times), len(calls)) == (3, 5)
    assert all(time >= 0 for time in times)

import copy

import pytest
import torch
from detectors import FAMILIES, draw_norms, small_detector
from segmentors import HEADS, small_segmentor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from detectron2.layers import FrozenBatchNorm2d

from resnest_d2 import ResNeSt
from resnest_d2.inference import fold_batch_norms

DCN = {"deform_on_per_stage": (False, True, True, True), "deform_modulated": True}


def batch_norms(model) -> int:
    return sum(isinstance(m, (_BatchNorm, FrozenBatchNorm2d)) for m in model.modules())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "FrozenBN"},
        {"norm": "SyncBN"},
        {"radix": 0},
        {"radix": 1, "num_groups": 2},
        {**DCN, "deform_num_groups": 2},
        {**DCN, "radix": 0},
        {"deep_stem": False, "avd": False, "avg_down": False},
    ],
    ids=str,
)
def test_folded_backbone_equals_the_unfolded_one_in_float64(options):
    model = ResNeSt.from_variant("resnest26", **options).double().eval()
    draw_norms(model)
    x = torch.randn(2, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        norms = batch_norms(model)
        assert fold_batch_norms(model) == norms > 0
        assert batch_norms(model) == 0
        for name, value in model(x).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_parts_of_a_detector_equal_the_unfolded_ones_in_float64(family):
    model = small_detector(family).double()
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    folded = copy.deepcopy(model)
    assert fold_batch_norms(folded) == batch_norms(model) > 0
    with torch.no_grad():
        expected = tree_leaves(outputs_of_parts(model, x))
        actual = tree_leaves(outputs_of_parts(folded, x))
    assert len(actual) > 5
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("head", HEADS)
def test_a_folded_segmentor_equals_the_unfolded_one_in_float64(head):
    model = small_segmentor(head).double()
    folded = copy.deepcopy(model)
    assert fold_batch_norms(folded) == batch_norms(model) > 0
    assert batch_norms(folded) == 0
    x = torch.randn(1, 3, 61, 97, dtype=torch.float64)
    with torch.no_grad():
        expected, actual = (m.sem_seg_head(m.backbone(x))[0] for m in (model, folded))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def outputs_of_parts(model, x) -> list:
    """Of backbone and heads; Detectron2's own code between them knows float32 only."""
    torch.manual_seed(0)
    features = model.backbone(x)
    outputs = [features]
    if hasattr(model, "head"):
        return [*outputs, model.head([features[name] for name in model.head_in_features])]
    outputs.append(model.proposal_generator.rpn_head(list(features.values())))
    heads = model.roi_heads
    box_heads = heads.box_head if isinstance(heads.box_head, nn.ModuleList) else [heads.box_head]
    outputs += [head(torch.randn(3, 16, 7, 7).double()) for head in box_heads]
    for name in ("mask_head", "keypoint_head"):
        if hasattr(heads, name):
            outputs.append(getattr(heads, name).layers(torch.randn(3, 16, 14, 14).double()))
    if hasattr(model, "sem_seg_head"):
        outputs.append(model.sem_seg_head.layers(features))
    return outputs


def test_what_depends_on_the_input_stays():
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8)),
        *(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)),
        *(nn.ReLU(), nn.BatchNorm2d(8)),
    ).eval()
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        expected = model(x)
        assert fold_batch_norms(model) == 0
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)


def test_batch_norm_behind_a_convolution_with_bias_is_folded():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).double().eval()
    draw_norms(model)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        assert fold_batch_norms(model) == 1
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"call eval\(\)"):
        fold_batch_norms(ResNeSt.from_variant("resnest14"))

"""Split attention as it is written for the compiler: the same numbers, where it fits."""

import copy

import pytest
import torch
from torch import nn

from resnest_d2.inference.compiled_attention import FusedSplitAttention, replace_attention
from resnest_d2.inference.fold import fold_batch_norms
from resnest_d2.modeling.deform_conv import DeformSplitAttentionConv2d
from resnest_d2.modeling.split_attention import SplitAttentionConv2d


def _folded(kind=SplitAttentionConv2d, **options) -> nn.Sequential:
    """A layer in a model, in float64, its norms' statistics random and folded."""
    layer = kind(32, 32, **{"norm": "BN", **options})
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
    model = nn.Sequential(layer).double().eval().requires_grad_(False)
    fold_batch_norms(model)
    return model


@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize(("images", "stride"), [(1, 1), (3, 2)])
def test_output_is_that_of_the_layer(images, stride, num_groups):
    model = _folded(num_groups=num_groups, stride=stride)
    x = torch.randn(images, 32, 9, 11, dtype=torch.float64).to(memory_format=torch.channels_last)
    expected = copy.deepcopy(model)(x)
    assert replace_attention(model) == 1
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)


def test_a_deformable_layer_gets_its_offsets():
    layer = _folded(DeformSplitAttentionConv2d)[0]
    x = torch.randn(2, 32, 9, 11, dtype=torch.float64)
    offset = torch.randn(2, 18, 9, 11, dtype=torch.float64)
    found = FusedSplitAttention(layer)(x, offset)
    torch.testing.assert_close(found, layer(x, offset), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"radix": 1}, {"radix": 4}, {"norm": "GN"}])
def test_other_layers_stay(options):
    model = _folded(**options)
    assert replace_attention(model) == 0
    assert type(model[0]) is SplitAttentionConv2d


def test_bfloat16_is_pooled_and_weighed_in_float32():
    model = _folded()
    x = torch.randn(1, 32, 24, 24, dtype=torch.float64)
    expected = model(x)
    replace_attention(model.to(torch.bfloat16))
    error = (model(x.bfloat16()).double() - expected).abs().max()
    assert 0 < error < 0.02 * expected.abs().max()

"""Split attention against the paper's equations, one cardinal group and one split at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnest_d2.modeling import SplitAttentionConv2d
from resnest_d2.modeling.resnest import Bottleneck
from resnest_d2.modeling.split_attention import attention_channels, fuse_splits, radix_softmax

RADIX_AND_CARDINALITY = [(r, k) for r in (1, 2, 3, 4) for k in (1, 2, 4)]


def randomise(module: nn.Module) -> nn.Module:
    """float64, and every parameter and statistic away from its initial value."""
    module.double()
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point():
            if name.endswith("running_var") or (name.endswith("weight") and value.dim() == 1):
                nn.init.uniform_(value, 0.5, 1.5)
            elif value.dim() == 1:
                nn.init.normal_(value, std=0.1)
    return module


def per_group_loop(m: SplitAttentionConv2d, x: torch.Tensor) -> torch.Tensor:
    """Section 3.1 of the paper: V^k = sum_r a^k_r * U_{R(k-1)+r}, concatenated over k."""
    radix, cardinality = m.radix, m.num_groups
    channels = m.fc1.in_channels // cardinality  # of a cardinal group: C / K
    inner = m.fc1.out_channels // cardinality

    def norm(bn, value, part):
        statistics = (None, None) if m.training else (bn.running_mean[part], bn.running_var[part])
        return F.batch_norm(
            value, *statistics, bn.weight[part], bn.bias[part], m.training, eps=bn.eps
        )

    # Radix-major, split r of group k reads slice r*K + k; in the paper, slice k*R + r.
    slices = x.chunk(radix * cardinality, dim=1)
    cardinality_major = [
        [slices[r * cardinality + k] for r in range(radix)] for k in range(cardinality)
    ]
    groups = []
    for k in range(cardinality):
        splits = []
        for r in range(radix):
            start = (r * cardinality + k) * channels
            part = slice(start, start + channels)
            u = F.conv2d(
                cardinality_major[k][r],
                m.conv.weight[part],
                stride=m.conv.stride,
                padding=m.conv.padding,
                dilation=m.conv.dilation,
            )
            splits.append(F.relu(norm(m.bn0, u, part)))
        s = sum(splits).mean(dim=(2, 3), keepdim=True)
        part = slice(k * inner, (k + 1) * inner)
        z = F.conv2d(s, m.fc1.weight[part], m.fc1.bias[part])
        z = F.relu(norm(m.bn1, z, part))
        part = slice(k * radix * channels, (k + 1) * radix * channels)
        g = F.conv2d(z, m.fc2.weight[part], m.fc2.bias[part]).chunk(radix, dim=1)
        if radix == 1:
            attention = [1 / (1 + (-g[0]).exp())]
        else:
            total = sum(logit.exp() for logit in g)
            attention = [logit.exp() / total for logit in g]
        groups.append(sum(a * u for a, u in zip(attention, splits, strict=True)))
    return torch.cat(groups, dim=1)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("radix, cardinality", RADIX_AND_CARDINALITY)
def test_radix_major_matches_per_group_loop(radix, cardinality, training):
    module = SplitAttentionConv2d(48, 48, radix=radix, num_groups=cardinality)
    randomise(module).train(training)
    x = torch.randn(3, 48, 7, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 48, 7, 6, dtype=torch.float64)
    inputs = [x, *module.parameters()]
    expected = per_group_loop(module, x)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    actual = module(x)
    gradients = torch.autograd.grad((actual * weight).sum(), inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride, dilation", [(2, 1), (1, 2), (2, 4)])
def test_stride_and_dilation_match_per_group_loop(stride, dilation):
    module = SplitAttentionConv2d(24, 24, radix=3, num_groups=2, stride=stride, dilation=dilation)
    x = torch.randn(2, 24, 9, 10, dtype=torch.float64)
    actual = randomise(module).eval()(x)
    assert actual.shape[2:] == (-(-9 // stride), -(-10 // stride))
    torch.testing.assert_close(actual, per_group_loop(module, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("radix, cardinality", RADIX_AND_CARDINALITY)
def test_weights_sum_to_one_over_the_splits(radix, cardinality):
    weights = radix_softmax(50 * torch.randn(2, radix * 12, 1, 1), radix, cardinality)
    assert weights.shape == (2, radix, 12, 1, 1)
    assert ((weights >= 0) & (weights <= 1)).all()
    if radix > 1:
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 12, 1, 1))


def test_one_split_is_a_sigmoid_gate():
    logits = torch.randn(2, 12, 1, 1)
    weights = radix_softmax(logits, 1, 4)
    torch.testing.assert_close(weights[:, 0], torch.sigmoid(logits))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_low_precision_logits_are_float32(dtype):
    logits = (30 * torch.randn(2, 24, 1, 1)).to(dtype)
    weights = radix_softmax(logits, 2, 1)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, radix_softmax(logits.float(), 2, 1))


@pytest.mark.parametrize("radix", [1, 2, 3, 4])
def test_fused_splits_equal_the_weighted_sum(radix):
    x = torch.randn(2, radix * 6, 5, 4, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, radix * 6, 1, 1, dtype=torch.float64, requires_grad=True)
    weights = radix_softmax(logits, radix, 2)
    splits = x.reshape(2, radix, 6, 5, 4)
    actual, expected = fuse_splits(x, weights, radix), (splits * weights).sum(dim=1)
    torch.testing.assert_close(actual, expected)
    for value in (x, logits):
        torch.testing.assert_close(
            *(
                torch.autograd.grad(y.square().sum(), value, retain_graph=True)[0]
                for y in (actual, expected)
            )
        )


def test_splits_keep_the_precision_of_their_input():
    module = SplitAttentionConv2d(16, 16).eval().to(torch.bfloat16)
    assert module(torch.randn(2, 16, 5, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_inner_width_is_a_quarter_of_the_splits_and_at_least_32():
    assert attention_channels(64, 2, 1) == 32
    assert attention_channels(512, 2, 1) == 256
    assert attention_channels(64, 1, 1) == 32
    assert attention_channels(96, 1, 4) == 32
    assert attention_channels(60, 3, 6) == 48  # 45, rounded up to a multiple of 6


def test_radix_0_is_a_plain_convolution_with_norm_and_relu():
    block = randomise(Bottleneck(32, 32, bottleneck_channels=16, radix=0, num_groups=2)).eval()
    names = {name for name, _ in block.named_parameters() if name.startswith("conv2")}
    assert names == {"conv2.weight", "conv2.norm.weight", "conv2.norm.bias"}
    x = torch.randn(2, 16, 7, 6, dtype=torch.float64)
    expected = F.conv2d(x, block.conv2.weight, padding=1, groups=2)
    expected = F.relu(block.conv2.norm(expected))
    torch.testing.assert_close(block.convolve(x), expected)

"""Deformable convolution against a loop that samples one tap of one output pixel at a time."""

import math

import pytest
import torch
import torch.nn.functional as F

from resnest_d2.modeling import ResNeSt
from resnest_d2.modeling.deform_conv import DeformConv2d, DeformSplitAttentionConv2d
from resnest_d2.modeling.resnest import Bottleneck, DeformBottleneck


def sample(plane: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Bilinear value of (C, H, W) at a point in pixels, zeros outside: (C,)."""
    height, width = plane.shape[1:]
    top, left = math.floor(y.item()), math.floor(x.item())
    out = plane.new_zeros(plane.shape[0])
    for i in (top, top + 1):
        for j in (left, left + 1):
            if 0 <= i < height and 0 <= j < width:
                out = out + (1 - (y - i).abs()) * (1 - (x - j).abs()) * plane[:, i, j]
    return out


def sampling_loop(conv: DeformConv2d, x, offset, mask):
    """(N, C_in, H, W) -> (N, C_out, h, w), by the definition."""
    (stride, _), (padding, _), (dilation, _) = conv.stride, conv.padding, conv.dilation
    n, channels = x.shape[:2]
    deform_groups = offset.shape[1] // 18
    rows = []
    for image in range(n):
        for h in range(offset.shape[2]):
            for w in range(offset.shape[3]):
                columns = []
                for tap in range(9):
                    y0 = h * stride - padding + tap // 3 * dilation
                    x0 = w * stride - padding + tap % 3 * dilation
                    column = []
                    for g in range(deform_groups):
                        k = g * 9 + tap
                        plane = x[image].chunk(deform_groups)[g]
                        dy, dx = offset[image, 2 * k : 2 * k + 2, h, w]
                        value = sample(plane, y0 + dy, x0 + dx)
                        column.append(value if mask is None else value * mask[image, k, h, w])
                    columns.append(torch.cat(column))
                rows.append(torch.stack(columns, dim=1))  # (C_in, 9)
    columns = torch.stack(rows).reshape(
        n, *offset.shape[2:], conv.groups, channels // conv.groups, 9
    )
    weight = conv.weight.reshape(conv.groups, -1, channels // conv.groups, 9)
    out = torch.einsum("nhwgct,goct->ngohw", columns, weight).flatten(1, 2)
    return out if conv.bias is None else out + conv.bias[:, None, None]


@pytest.mark.parametrize("modulated", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize(
    "groups, deform_groups, stride, dilation",
    [(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1), (4, 2, 1, 1), (2, 4, 1, 1), (4, 4, 2, 1)]
    + [(2, 2, 2, 1), (1, 1, 1, 2), (2, 2, 1, 2), (4, 1, 2, 4)],
)
def test_deformable_convolution_matches_sampling_loop(
    groups, deform_groups, stride, dilation, modulated
):
    conv = DeformConv2d(
        8, 12, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups
    ).double()
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64, requires_grad=True)
    h, w = -(-5 // stride), -(-4 // stride)
    offset = (1.5 * torch.randn(2, 18 * deform_groups, h, w, dtype=torch.float64)).requires_grad_()
    inputs = [x, offset, conv.weight, conv.bias]
    mask = None
    if modulated:
        mask = torch.rand(2, 9 * deform_groups, h, w, dtype=torch.float64, requires_grad=True)
        inputs.append(mask)
    actual, expected = conv(x, offset, mask), sampling_loop(conv, x, offset, mask)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(actual)
    torch.testing.assert_close(
        torch.autograd.grad((actual * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("stride, dilation, groups", [(1, 1, 1), (2, 1, 2), (1, 2, 4)])
def test_zero_offset_is_a_plain_convolution(stride, dilation, groups):
    options = {"stride": stride, "padding": dilation, "dilation": dilation, "groups": groups}
    conv = DeformConv2d(8, 8, 3, **options).double()
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    expected = F.conv2d(x, conv.weight, conv.bias, **options)
    offset = x.new_zeros(2, 18, *expected.shape[2:])
    torch.testing.assert_close(conv(x, offset), expected)
    half = x.new_full((2, 9, *expected.shape[2:]), 0.5)
    bias = conv.bias[:, None, None]
    torch.testing.assert_close(conv(x, offset, half) - bias, (expected - bias) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_keeps_its_type(dtype):
    conv = DeformSplitAttentionConv2d(8, 8).eval()
    x, offset = torch.randn(2, 8, 6, 5), torch.randn(2, 18, 6, 5)
    expected = conv(x, offset)
    actual = conv.to(dtype)(x.to(dtype), offset.to(dtype))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype):
    conv = DeformConv2d(8, 8, 3, padding=1).to(dtype)
    x, offset, mask = torch.randn(2, 8, 6, 5), torch.randn(2, 18, 6, 5), torch.rand(2, 9, 6, 5)
    given = [value.to(dtype) for value in (x, offset, mask)]
    actual = conv(*given)
    expected = conv.float()(*(value.float() for value in given))
    assert torch.equal(actual, expected.to(dtype))


@pytest.mark.parametrize("radix", [0, 1, 2])
@pytest.mark.parametrize("modulated, deform_groups", [(False, 1), (False, 2), (True, 1), (True, 2)])
def test_deformable_block_adds_nothing_but_its_offset_convolution(radix, modulated, deform_groups):
    options = {"bottleneck_channels": 16, "radix": radix, "stride": 2}
    plain = Bottleneck(32, 64, **options)
    deform = DeformBottleneck(
        32, 64, deform_modulated=modulated, deform_num_groups=deform_groups, **options
    )
    extra = {k: v.shape for k, v in deform.state_dict().items() if k.startswith("conv2_offset")}
    channels = (27 if modulated else 18) * deform_groups
    assert extra == {
        "conv2_offset.weight": (channels, 16 // deform_groups, 3, 3),
        "conv2_offset.bias": (channels,),
    }
    rest = {k: v.shape for k, v in deform.state_dict().items() if k not in extra}
    assert rest == {k: v.shape for k, v in plain.state_dict().items()}

    # Offsets start at zero, so that v1 starts as the plain block.
    x = torch.randn(2, 32, 9, 8)
    missing, unexpected = deform.load_state_dict(plain.state_dict(), strict=False)
    assert set(missing) == set(extra) and not unexpected
    if not modulated:
        torch.testing.assert_close(deform.eval()(x), plain.eval()(x))
    assert deform.eval()(x).shape == (2, 64, 5, 4)


@pytest.mark.parametrize("avd", [False, True])
@pytest.mark.parametrize("dilation, stride", [(1, 2), (2, 1), (4, 1)])
def test_offsets_follow_stride_and_dilation_of_the_convolution(dilation, stride, avd):
    block = DeformBottleneck(
        32, 32, bottleneck_channels=16, stride=stride, dilation=dilation, avd=avd
    ).double()
    torch.nn.init.normal_(block.conv2_offset.weight, std=0.1)
    conv, offset = block.conv2.conv, block.conv2_offset
    assert conv.stride == offset.stride == ((1, 1) if avd else (stride, stride))
    assert conv.dilation == offset.dilation == (dilation, dilation)
    x = torch.randn(2, 16, 7, 6, dtype=torch.float64)
    block.eval()
    expected = block.conv2.attend(sampling_loop(conv, x, offset(x), None))
    torch.testing.assert_close(block.convolve(x), expected)


def test_modulated_block_orders_its_channels_as_the_released_checkpoints():
    """All of the first two thirds are offsets, the last third is the mask."""
    block = DeformBottleneck(
        32, 32, bottleneck_channels=16, deform_modulated=True, deform_num_groups=2
    ).double()
    torch.nn.init.normal_(block.conv2_offset.weight, std=0.1)
    x = torch.randn(1, 16, 5, 4, dtype=torch.float64)
    out = block.eval().conv2_offset(x)
    expected = sampling_loop(block.conv2.conv, x, out[:, :36], out[:, 36:].sigmoid())
    torch.testing.assert_close(block.convolve(x), block.conv2.attend(expected))


@pytest.mark.parametrize("modulated", [False, True], ids=["v1", "v2"])
def test_stages_are_deformable_where_asked(modulated):
    model = ResNeSt(
        14,
        deform_on_per_stage=(False, True, False, True),
        deform_modulated=modulated,
        deform_num_groups=2,
    )
    kinds = {name: type(getattr(model, name)[0]) for name in ("res2", "res3", "res4", "res5")}
    assert kinds == {
        "res2": Bottleneck,
        "res3": DeformBottleneck,
        "res4": Bottleneck,
        "res5": DeformBottleneck,
    }

import pytest
import torch
from torch import nn

from detectron2.layers import Conv2d

from resnest_d2.inference.winograd import WinogradConv2d, replace_convolutions

pytestmark = pytest.mark.skipif(
    not hasattr(torch.library, "custom_op"), reason="this PyTorch makes no operators of one's own"
)


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [((1, 64, 40, 41), 64), ((2, 64, 43, 90), 96), ((300, 64, 7, 7), 64), ((1, 64, 3, 5), 64)],
)
@pytest.mark.parametrize(("groups", "bias"), [(1, True), (2, True), (4, False)])
def test_output_is_that_of_the_convolution(shape, outputs, groups, bias, monkeypatch):
    monkeypatch.setattr("resnest_d2.inference.winograd._VALUES", 64 * 64)  # several chunks
    kinds = {"groups": groups, "bias": bias, "activation": nn.ReLU(inplace=True)}
    conv = Conv2d(64, outputs, 3, padding=1, **kinds).double()
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        found = WinogradConv2d(conv)(x)
        torch.testing.assert_close(found, conv(x), rtol=1e-10, atol=1e-10)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_float32_is_off_by_little():
    conv = Conv2d(256, 256, 3, padding=1)
    x = torch.randn(1, 256, 48, 48).relu()
    with torch.no_grad():
        exact = conv.double()(x.double())
        found = WinogradConv2d(conv.float())(x)
    assert (found - exact).abs().max() < 1e-4 * exact.abs().max()


def test_only_what_it_can_be_is_replaced():
    other = [
        nn.Conv2d(128, 128, 1),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3, padding=2, dilation=2),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=1),
    ]
    grouped = nn.Conv2d(128, 256, 3, padding=1, groups=2)
    model = nn.Sequential(nn.Conv2d(64, 128, 3, padding=1), grouped, *other)
    assert replace_convolutions(model) == 2
    assert [type(module) for module in model[:2]] == [WinogradConv2d] * 2
    assert list(model[2:]) == other
    assert replace_convolutions(model) == 0

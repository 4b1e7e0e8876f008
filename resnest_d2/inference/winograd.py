"""3x3 convolutions with four times fewer multiplications (Lavin & Gray, arXiv 1509.09308).

Winograd's F(4x4, 3x3): an output tile of 4x4 pixels is computed from an input tile of 6x6 by 36
products of channel matrices instead of 144, between two linear transforms::

    Y = A^T [ (G w G^T) * (B^T d B) ] A

oneDNN computes float32 convolutions directly, at the processor's peak, so that only fewer
multiplications save time. Transforms and products are matrix multiplications over some hundred
tiles at a time, which stay in the processor's cache. The error is about 1e-5 of the largest value,
ten times that of a direct convolution.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from detectron2.layers import Conv2d

from .replace import replace_modules

# Interpolation points: 0, 1, -1, 2, -2 and infinity.
_BT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_G = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_AT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float64,
)
_INTO = torch.kron(_BT, _BT)  # (36, 36), of a tile's 36 pixels
_BACK = torch.kron(_AT, _AT)  # (16, 36)
_VALUES = 384 * 256  # tiles x channels of one of the 36 matrices, which take 14 MB together
_FEWEST = 100  # tiles; with fewer, reading four times the weights takes the time that is saved
_CHANNELS = 64 * 128  # input times output channels of a group; likewise


class WinogradConv2d(nn.Module):
    """Computes Detectron2's ``Conv2d``, 3x3 with stride 1 and padding 1, for inference on a CPU.

    Args:
        of: the convolution. Weights are shared.
    """

    def __init__(self, of: nn.Conv2d):
        super().__init__()
        self.of = of
        weight = of.weight.double().unflatten(0, (of.groups, -1))  # (g, K/g, C/g, 3, 3)
        # Three dimensions, because channels_last would reorder a tensor of four.
        transformed = torch.einsum("ai,gkcij,bj->abgck", _G, weight, _G).flatten(0, 2)
        self.register_buffer("transformed", transformed.to(of.weight.dtype).contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), fastest in channels_last -> (N, K, H, W)"""
        if statically_known_true(_tiles(x) < _FEWEST):
            return self.of(x)
        out = _operator(x, self.transformed, self.of.weight, self.of.bias, self.of.groups)
        if getattr(self.of, "norm", None) is not None:
            out = self.of.norm(out)
        if getattr(self.of, "activation", None) is not None:
            out = self.of.activation(out)
        return out


def replace_convolutions(model: nn.Module) -> int:
    """Use :class:`WinogradConv2d` wherever possible, in place; returns their number."""
    if not hasattr(torch.library, "custom_op"):  # before PyTorch 2.4
        return 0
    return replace_modules(model, WinogradConv2d, _fits)


def _fits(conv: nn.Module) -> bool:
    if type(conv) not in (nn.Conv2d, Conv2d):
        return False
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    plain = geometry == ((3, 3), (1, 1), (1, 1), (1, 1)) and conv.padding_mode == "zeros"
    return plain and conv.in_channels * conv.out_channels >= _CHANNELS * conv.groups**2


def _tiles(x: torch.Tensor) -> int:
    return x.shape[0] * ((x.shape[2] + 3) // 4) * ((x.shape[3] + 3) // 4)


def _winograd_conv2d(
    x: torch.Tensor,
    transformed: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    groups: int,
) -> torch.Tensor:
    if _tiles(x) >= _FEWEST:
        return _convolve(x, transformed, bias, groups)
    out = F.conv2d(x, weight, bias, padding=1, groups=groups)
    return out.contiguous(memory_format=torch.channels_last)


if hasattr(torch.library, "custom_op"):  # one operator, which Inductor does not compile
    _operator = torch.library.custom_op(
        "resnest_d2::winograd_conv2d", _winograd_conv2d, mutates_args=()
    )

    @_operator.register_fake
    def _(x, transformed, weight, bias, groups):
        shape = (x.shape[0], weight.shape[0], x.shape[2], x.shape[3])
        return x.new_empty(shape).to(memory_format=torch.channels_last)


def _convolve(
    x: torch.Tensor, transformed: torch.Tensor, bias: torch.Tensor | None, groups: int
) -> torch.Tensor:
    batch, channels, height, width = x.shape
    own = transformed.shape[2]  # of (36 groups, C / groups, K / groups)
    outputs = groups * own
    rows, columns = -(-height // 4), -(-width // 4)  # tiles
    into, back = _INTO.to(x.dtype), _BACK.to(x.dtype)
    x = x.permute(0, 2, 3, 1)
    out = x.new_empty(batch, rows, 4, columns, 4, groups, own)
    # Some rows of tiles of a large image, or some small images, at a time.
    most = _VALUES // max(channels, outputs)
    images = min(batch, max(1, most // (rows * columns)))
    some = rows if images > 1 else min(rows, max(1, most // columns))
    size = 36 * images * some * columns * max(channels, outputs)
    first, second = x.new_empty(size), x.new_empty(size)  # once, because allocation is slow
    for n in range(0, batch, images):
        for top in range(0, 4 * rows, 4 * some):
            bottom = min(top + 4 * some, 4 * rows)
            part = x[n : n + images, max(0, top - 1) : bottom + 1]
            above, below = int(top == 0), max(0, bottom + 1 - height)
            part = F.pad(part, (0, 0, 1, 4 * columns + 1 - width, above, below))
            # Tiles overlap by two pixels: a view (n, r, columns, C, 6, 6)
            tiles = part.unfold(1, 6, 4).unfold(2, 6, 4).permute(0, 1, 2, 4, 5, 3)
            n_r_columns = tiles.shape[:3]
            count = math.prod(n_r_columns)
            raw = _buffer(first, *tiles.shape).copy_(tiles).view(count, 36, channels)
            inputs = torch.bmm(into.expand(count, -1, -1), raw, out=_buffer(second, *raw.shape))
            products = torch.bmm(
                inputs.view(count, 36 * groups, -1).transpose(0, 1),
                transformed,
                out=_buffer(first, 36 * groups, count, own),
            )
            result = torch.bmm(
                back.expand(groups * count, -1, -1),
                products.view(36, groups * count, own).transpose(0, 1),
                out=_buffer(second, groups * count, 16, own),
            ).view(groups, *n_r_columns, 4, 4, own)
            if bias is not None:
                result += bias.view(groups, 1, 1, 1, 1, 1, own)
            into_rows = slice(top // 4, bottom // 4)
            out[n : n + images, into_rows].copy_(result.permute(1, 2, 4, 3, 5, 0, 6))
    out = out.view(batch, 4 * rows, 4 * columns, outputs)[:, :height, :width]
    return out.contiguous().permute(0, 3, 1, 2)


def _buffer(memory: torch.Tensor, *shape: int) -> torch.Tensor:
    """The beginning of ``memory`` in this shape."""
    return memory[: math.prod(shape)].view(shape)

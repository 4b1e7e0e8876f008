"""ResNeSt (Split-Attention Networks, arXiv 2004.08955) as a Detectron2 backbone.

A ResNet-D whose 3x3 convolutions are split-attention convolutions and whose strides are average
pools (sections 3 and 4). Built on Detectron2's ``ResNet`` and ``CNNBlockBase``; parameter names are
those of the released detection checkpoints, arithmetic that of the official classification models.

Dilated stages exist in two styles. In the original Detectron2 plugin, a stage without stride has no
average pool, and all of its blocks take its dilation. In the official classifiers, and so in the
published segmentation models, the first block of such a stage pools (3x3, stride 1) and takes the
previous stage's dilation. (timm's first block takes that dilation and does not pool.)
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from detectron2.layers import CNNBlockBase, Conv2d
from detectron2.modeling.backbone.resnet import BasicStem, ResNet

from ..errors import ArgumentError, check_choice
from .checkpointing import convolve, needs_gradients, normalise, recomputed
from .deform_conv import DeformConv2d, DeformSplitAttentionConv2d
from .init import msra_fill
from .norm import get_norm
from .split_attention import SplitAttentionConv2d

# depth -> (blocks per stage, stem width)
DEPTHS = {
    14: ((1, 1, 1, 1), 32),
    26: ((2, 2, 2, 2), 32),
    50: ((3, 4, 6, 3), 32),
    101: ((3, 4, 23, 3), 64),
    200: ((3, 24, 36, 3), 64),
    269: ((3, 30, 48, 8), 64),
}


# "4s2x40d" (table 4): radix 4, cardinality 2, bottleneck width 40
_FAST = ((1, 1, 64), (2, 1, 64), (4, 1, 64), (1, 2, 40), (2, 2, 40), (4, 2, 40), (1, 4, 24))

# published name -> arguments of ResNeSt
VARIANTS = {
    **{f"resnest{depth}": {"depth": depth} for depth in DEPTHS},
    **{
        f"resnest50_fast_{radix}s{num_groups}x{width}d": {
            "depth": 50,
            "radix": radix,
            "num_groups": num_groups,
            "bottleneck_width": width,
            "avd_first": True,
        }
        for radix, num_groups, width in _FAST
    },
}

_STAGES = ("res2", "res3", "res4", "res5")
_DILATIONS = (1, 2, 4)
_DILATION_STYLES = ("plugin", "classifier")


def _conv(c_in: int, c_out: int, kernel_size: int, *, stride: int = 1, norm) -> Conv2d:
    """A convolution with a norm, without bias and activation; padded by half its kernel."""
    layer = Conv2d(
        c_in,
        c_out,
        kernel_size=kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=False,
        norm=get_norm(norm, c_out),
    )
    msra_fill(layer)
    return layer


class DeepStem(CNNBlockBase):
    """Three 3x3 convolutions and a max pool: (N, C_in, H, W) -> (N, 2*width, H/4, W/4).

    Args:
        in_channels: image channels.
        width: channels of the first two convolutions; the third has twice as many.
        norm: see :func:`resnest_d2.modeling.norm.get_norm`.
    """

    def __init__(self, in_channels: int = 3, width: int = 32, *, norm="BN"):
        super().__init__(in_channels, 2 * width, stride=4)
        self.conv1_1 = _conv(in_channels, width, 3, stride=2, norm=norm)
        self.conv1_2 = _conv(width, width, 3, norm=norm)
        self.conv1_3 = _conv(width, 2 * width, 3, norm=norm)
        self.recompute_norm = False  # see checkpointing.recompute_norms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():
            if _recomputes(self, self.conv1_1, x):
                return self._forward_recomputing(x)
        x = F.relu_(self.conv1_1(x))  # (N, w, H/2, W/2)
        x = F.relu_(self.conv1_2(x))
        x = F.relu_(self.conv1_3(x))  # (N, 2w, H/2, W/2)
        return self.pool(x)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)

    @torch.jit.unused
    def _forward_recomputing(self, x: torch.Tensor) -> torch.Tensor:
        x = convolve(self.conv1_1, x)
        for conv, then in (
            (self.conv1_1, partial(convolve, self.conv1_2)),
            (self.conv1_2, partial(convolve, self.conv1_3)),
            (self.conv1_3, self.pool),
        ):
            x = recomputed(lambda z, c=conv, f=then: f(F.relu_(normalise(c, z))), x, conv)
        return x


class Bottleneck(CNNBlockBase):
    """1x1, 3x3 with split attention, 1x1, and a shortcut: (N, C_in, h, w) -> (N, C, h/s, w/s).

    Args:
        bottleneck_channels: channels between the 1x1 convolutions (the paper's group width).
        stride: of the block, 1 or 2.
        dilation: of the 3x3 convolution, 1, 2 or 4.
        radix: number of splits; 0 makes the 3x3 a plain convolution (``conv2.weight``,
            ``conv2.norm``).
        num_groups: cardinality.
        norm: see :func:`resnest_d2.modeling.norm.get_norm`.
        avd: a 3x3 average pool has the stride, after the 3x3 convolution (before it with
            ``avd_first``).
        avd_unstrided: the pool of ``avd`` is there without a stride too.
        avg_down: in the shortcut, an average pool before the 1x1 convolution has the stride.
        stride_in_1x1: the first 1x1 convolution has the stride; excludes ``avd``.
    """

    conv_class = Conv2d
    split_attention_class = SplitAttentionConv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        dilation: int = 1,
        radix: int = 2,
        num_groups: int = 1,
        norm="BN",
        avd: bool = True,
        avd_first: bool = False,
        avd_unstrided: bool = False,
        avg_down: bool = True,
        stride_in_1x1: bool = False,
    ):
        super().__init__(in_channels, out_channels, stride)
        check_choice("stride", stride, (1, 2))
        check_choice("dilation", dilation, _DILATIONS)
        if stride_in_1x1 and avd:
            raise ArgumentError(
                "stride_in_1x1",
                "must be False where AVD is on (its average pool already has the stride), got True",
            )
        pool = avd and (stride > 1 or avd_unstrided)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, 1 if pool else stride)
        self.shortcut_pool, self.shortcut = nn.Identity(), nn.Identity()
        if stride > 1 or in_channels != out_channels:
            if avg_down and stride > 1:
                self.shortcut_pool = nn.AvgPool2d(
                    stride, stride, ceil_mode=True, count_include_pad=False
                )
            stride_shortcut = 1 if avg_down else stride
            self.shortcut = _conv(in_channels, out_channels, 1, stride=stride_shortcut, norm=norm)

        def avd_pool(here: bool) -> nn.Module:
            return nn.AvgPool2d(3, stride, padding=1) if pool and here else nn.Identity()

        self.conv1 = _conv(in_channels, bottleneck_channels, 1, stride=stride_1x1, norm=norm)
        self.pool_before = avd_pool(avd_first)
        if radix == 0:
            self.conv2 = self.conv_class(
                bottleneck_channels,
                bottleneck_channels,
                kernel_size=3,
                stride=stride_3x3,
                padding=dilation,
                dilation=dilation,
                groups=num_groups,
                bias=False,
                norm=get_norm(norm, bottleneck_channels),
                activation=nn.ReLU(inplace=True),
            )
            msra_fill(self.conv2)
        else:
            self.conv2 = self.split_attention_class(
                bottleneck_channels,
                bottleneck_channels,
                radix=radix,
                num_groups=num_groups,
                stride=stride_3x3,
                dilation=dilation,
                norm=norm,
            )
        self.pool_after = avd_pool(not avd_first)
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm=norm)
        self.recompute_norm = False  # see checkpointing.recompute_norms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():
            if _recomputes(self, self.conv1, x):
                return self._forward_recomputing(x)
        out = F.relu_(self.conv1(x))
        out = self.convolve(self.pool_before(out))
        out = self.conv3(self.pool_after(out))
        out += self.shortcut(self.shortcut_pool(x))
        return F.relu_(out)

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """The 3x3 convolution, with norm, ReLU and attention."""
        return self.conv2(x)

    @torch.jit.unused
    def _forward_recomputing(self, x: torch.Tensor) -> torch.Tensor:
        """As :meth:`forward`, but the backward pass computes what is between convolutions again."""

        def to_second(z: torch.Tensor) -> torch.Tensor:
            return self.convolve_alone(self.pool_before(F.relu_(normalise(self.conv1, z))))

        def to_third(z: torch.Tensor) -> torch.Tensor:
            if isinstance(self.conv2, SplitAttentionConv2d):
                z = self.conv2.attend(z)
            else:
                z = F.relu_(normalise(self.conv2, z))
            return convolve(self.conv3, self.pool_after(z))

        out = recomputed(to_second, convolve(self.conv1, x), self.conv1)
        out = recomputed(to_third, out, self.conv2)
        out = normalise(self.conv3, out)
        out += self.shortcut(self.shortcut_pool(x))
        return F.relu_(out)

    def convolve_alone(self, x: torch.Tensor) -> torch.Tensor:
        """The 3x3 convolution without norm, ReLU and attention."""
        return convolve(_convolution(self.conv2), x)


class DeformBottleneck(Bottleneck):
    """A :class:`Bottleneck` whose 3x3 convolution is deformable.

    Offsets (and masks) come from ``conv2_offset``, a 3x3 convolution over the same input, grouped
    by the deformable groups as in the released checkpoints, and start at zero.

    Args:
        deform_modulated: v2, with a mask; otherwise v1.
        deform_num_groups: deformable groups, each with its own offsets.
        kwargs: see :class:`Bottleneck`.
    """

    conv_class = DeformConv2d
    split_attention_class = DeformSplitAttentionConv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
        **kwargs,
    ):
        super().__init__(in_channels, out_channels, **kwargs)
        channels = self.conv1.out_channels
        if deform_num_groups < 1 or channels % deform_num_groups:
            raise ArgumentError(
                "deform_num_groups",
                f"must be at least 1 and divide the {channels} channels of the deformable "
                f"convolution, got {deform_num_groups}",
            )
        self.deform_modulated = deform_modulated
        conv = _convolution(self.conv2)
        taps = conv.kernel_size[0] * conv.kernel_size[1]
        self.conv2_offset = Conv2d(
            channels,
            (3 if deform_modulated else 2) * taps * deform_num_groups,
            kernel_size=conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=deform_num_groups,
        )
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        offset, mask = self.deformation(x)
        return self.conv2(x, offset, mask)

    def convolve_alone(self, x: torch.Tensor) -> torch.Tensor:
        return _convolution(self.conv2).convolve(x, *self.deformation(x))

    def deformation(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Offsets and, where modulated, mask: see :meth:`DeformConv2d.forward`."""
        offset = self.conv2_offset(x)
        if not self.deform_modulated:
            return offset, None
        first, second, mask = offset.chunk(3, dim=1)
        return torch.cat((first, second), dim=1), mask.sigmoid()


def _convolution(conv2: nn.Module) -> nn.Module:
    """The convolution of a block's ``conv2``, which may be split attention."""
    return conv2.conv if isinstance(conv2, SplitAttentionConv2d) else conv2


def _recomputes(block: nn.Module, first: Conv2d, x: torch.Tensor) -> bool:
    """Whether the block's forward pass keeps only the outputs of its convolutions."""
    if not block.recompute_norm or first.norm is None:
        return False
    # torch.compile decides by itself what to compute again.
    return needs_gradients(block, x) and not torch.compiler.is_compiling()


class ResNeSt(ResNet):
    """The ResNeSt backbone.

    Shapes: (N, C_in, H, W) -> a dict of stem (stride 4) and res2 ... res5 (strides 4, 8, 16, 32;
    256, 512, 1024, 2048 channels), and ``linear`` (N, num_classes) where there is a classifier.
    Any H and W; a stride gives ceil(n / 2).

    Args:
        depth: one of :data:`DEPTHS`.
        in_channels: image channels.
        radix: number of splits (R); 1 is a sigmoid gate, 0 a plain convolution.
        num_groups: cardinality (K).
        width_per_group, bottleneck_width: stage k = 0...3 has
            ``int(width_per_group * 2**k * bottleneck_width / 64) * num_groups`` channels between
            its 1x1 convolutions.
        res2_out_channels: channels of res2; each later stage has twice as many.
        deep_stem: three 3x3 convolutions instead of one 7x7.
        stem_width: width of the deep stem, by default the depth's published one.
        stem_out_channels: channels of the 7x7 stem (the deep stem has ``2 * stem_width``).
        avd, avd_first, avg_down, stride_in_1x1: see :class:`Bottleneck`.
        res4_dilation, res5_dilation: 1, 2 or 4; above 1 the stage keeps the resolution.
        dilation_style: ``"plugin"`` or ``"classifier"``, see the module.
        deform_on_per_stage: for res2 ... res5, whether its 3x3 convolutions are deformable.
        deform_modulated, deform_num_groups: see :class:`DeformBottleneck`.
        norm: see :func:`resnest_d2.modeling.norm.get_norm`.
        num_classes: adds global average pooling and a linear layer after res5; the output
            ``linear`` has its logits.
        out_features: outputs; stages after the last of them are not built.
        freeze_at: freezes the stem (1), res2 (2) ... res5 (5), batch norms included.

    Raises:
        ArgumentError: an invalid value; the message has the choices.
    """

    def __init__(
        self,
        depth: int,
        *,
        in_channels: int = 3,
        radix: int = 2,
        num_groups: int = 1,
        width_per_group: int = 64,
        bottleneck_width: int = 64,
        res2_out_channels: int = 256,
        deep_stem: bool = True,
        stem_width: int | None = None,
        stem_out_channels: int = 64,
        avd: bool = True,
        avd_first: bool = False,
        avg_down: bool = True,
        stride_in_1x1: bool = False,
        res4_dilation: int = 1,
        res5_dilation: int = 1,
        dilation_style: str = "plugin",
        deform_on_per_stage: tuple[bool, ...] = (False, False, False, False),
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
        norm="BN",
        num_classes: int | None = None,
        out_features: tuple[str, ...] = _STAGES,
        freeze_at: int = 0,
    ):
        check_choice("depth", depth, DEPTHS)
        check_choice("res4_dilation", res4_dilation, _DILATIONS)
        check_choice("res5_dilation", res5_dilation, _DILATIONS)
        check_choice("dilation_style", dilation_style, _DILATION_STYLES)
        check_choice("freeze_at", freeze_at, range(6))
        minima = {
            "in_channels": (in_channels, 1),
            "radix": (radix, 0),
            "num_groups": (num_groups, 1),
            "width_per_group": (width_per_group, 1),
            "bottleneck_width": (bottleneck_width, 1),
            "res2_out_channels": (res2_out_channels, 1),
            "stem_width": (stem_width or 0, 0),
            "stem_out_channels": (stem_out_channels, 1),
            "num_classes": (1 if num_classes is None else num_classes, 1),
        }
        for name, (value, minimum) in minima.items():
            if value < minimum:
                raise ArgumentError(name, f"must be at least {minimum}, got {value}")
        if width_per_group * bottleneck_width < 64:
            raise ArgumentError(
                "width_per_group",
                "times bottleneck_width / 64 must be at least 1, got "
                f"{width_per_group} * {bottleneck_width} / 64",
            )
        if len(deform_on_per_stage) != len(_STAGES):
            raise ArgumentError(
                "deform_on_per_stage",
                f"must have one entry for each of {_STAGES}, got {deform_on_per_stage!r}",
            )
        available = ("stem", *_STAGES) + (("linear",) if num_classes is not None else ())
        if isinstance(out_features, str) or not out_features:
            raise ArgumentError(
                "out_features", f"must be a list with some of {available}, got {out_features!r}"
            )
        for feature in out_features:
            check_choice("out_features", feature, available)

        blocks_per_stage, published_stem_width = DEPTHS[depth]
        if deep_stem:
            stem = DeepStem(in_channels, stem_width or published_stem_width, norm=norm)
        else:
            stem = BasicStem(in_channels, stem_out_channels, norm=lambda c: get_norm(norm, c))

        built = len(_STAGES)
        if num_classes is None:
            built = max(_STAGES.index(f) + 1 if f in _STAGES else 0 for f in out_features)
        stages = []
        channels, out_channels = stem.out_channels, res2_out_channels
        dilations = (1, 1, res4_dilation, res5_dilation)
        for k in range(built):
            block_class, options = Bottleneck, {}
            if deform_on_per_stage[k]:
                block_class = DeformBottleneck
                options = dict(
                    deform_modulated=deform_modulated, deform_num_groups=deform_num_groups
                )
            dilated, more_blocks = dilations[k] > 1, blocks_per_stage[k] - 1
            first_dilation = dilations[k]
            pools = dilated and dilation_style == "classifier"
            if pools:
                first_dilation = dilations[k - 1]
            group_width = int(width_per_group * 2**k * bottleneck_width / 64)
            stages.append(
                ResNet.make_stage(
                    block_class,
                    blocks_per_stage[k],
                    in_channels=channels,
                    out_channels=out_channels,
                    bottleneck_channels=group_width * num_groups,
                    stride_per_block=[1 if k == 0 or dilated else 2] + [1] * more_blocks,
                    dilation_per_block=[first_dilation] + [dilations[k]] * more_blocks,
                    avd_unstrided_per_block=[pools] + [False] * more_blocks,
                    radix=radix,
                    num_groups=num_groups,
                    norm=norm,
                    avd=avd,
                    avd_first=avd_first,
                    avg_down=avg_down,
                    stride_in_1x1=stride_in_1x1,
                    **options,
                )
            )
            channels, out_channels = out_channels, 2 * out_channels
        super().__init__(
            stem,
            stages,
            num_classes=num_classes,
            out_features=[_STAGES[built - 1] if built else "stem"],
            freeze_at=freeze_at,
        )
        self._out_features = list(out_features)
        if num_classes is not None:
            self._out_feature_channels["linear"] = num_classes
            self._out_feature_strides["linear"] = None
            if "linear" not in self._out_features:
                self._out_features.append("linear")

    # ``model_zoo.pretrained`` sets it: names and files of weights belong to rooms above this one.
    weights_loader: ClassVar[Callable[["ResNeSt", str, str], None] | None] = None

    @classmethod
    def from_variant(
        cls,
        name: str,
        *,
        weights: str | None = None,
        norm="BN",
        in_channels: int = 3,
        num_classes: int | None = None,
        out_features: tuple[str, ...] = _STAGES,
        freeze_at: int = 0,
        **overrides,
    ) -> "ResNeSt":
        """Build a published network by name.

        Args:
            name: one of :data:`VARIANTS`, e.g. ``"resnest50"`` or ``"resnest50_fast_2s2x40d"``.
            weights: fill it with published weights, as timm's ``pretrained`` does: a name such as
                ``"resnest50"``, downloaded if needed, or a file; see
                :func:`resnest_d2.model_zoo.pretrained.load_pretrained`. They expect images that
                are normalised by ``resnest_d2.model_zoo.WEIGHTS[weights].statistics`` (for
                ``"resnest50"``: RGB, 0-255, minus the mean, divided by the std); this class does
                not normalise.
            norm, in_channels, num_classes, out_features, freeze_at: see :class:`ResNeSt`.
            overrides: any other argument of :class:`ResNeSt`, in place of the published value.

        Raises:
            ArgumentError: an unknown name, or a value that cannot be.
        """
        check_choice("variant", name, VARIANTS)
        network = cls(
            norm=norm,
            in_channels=in_channels,
            num_classes=num_classes,
            out_features=out_features,
            freeze_at=freeze_at,
            **{**VARIANTS[name], **overrides},
        )
        if weights is not None:
            cls.weights_loader(network, name, weights)
        return network

"""The published heads for semantic segmentation: FCN and DeepLabV3 (arXiv 1706.05587).

They are those of the published ResNeSt segmentation models (PyTorch-Encoding), for Detectron2's
``SemanticSegmentor``. Detectron2's own ``DeepLabV3Head`` differs: it has no 3x3 convolution between
ASPP and predictor, no norm after its image pooling, and no auxiliary loss.
"""

import torch
import torch.nn.functional as F
from torch import nn

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

from ..errors import ArgumentError, check_choice
from .init import msra_fill
from .norm import get_norm, needs_second_value

ONE_IMAGE = (
    "The image pooling of ASPP has one value per channel and image, and its batch norm has one "
    "image to take statistics from. Train with two or more images per process "
    "(SOLVER.IMS_PER_BATCH, RESNEST.ACCUMULATE), with SyncBN over several processes, or with "
    'MODEL.SEM_SEG_HEAD.NORM "GN".'
)
_AUX_CHANNELS = 256
_LOSS_TYPES = ("cross_entropy", "hard_pixel_mining")
_HARDEST = 0.2  # share of the pixels that "hard_pixel_mining" takes, as in Detectron2's heads


def _conv(
    c_in: int,
    c_out: int,
    kernel_size: int,
    *,
    dilation: int = 1,
    norm,
    on_vector: bool = False,
) -> Conv2d:
    """A convolution with norm and ReLU, without bias, that keeps the size of the map."""
    layer = Conv2d(
        c_in,
        c_out,
        kernel_size=kernel_size,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        bias=False,
        norm=get_norm(norm, c_out, on_vector=on_vector),
        activation=F.relu_,
    )
    msra_fill(layer)
    return layer


class ImagePooling(nn.Module):
    """The mean of a map, convolved, for each of its positions: (N, C_in, h, w) -> (N, C, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, *, norm):
        super().__init__()
        self.conv = _conv(in_channels, out_channels, 1, norm=norm, on_vector=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():
            if needs_second_value(self.conv.norm) and x.shape[0] == 1:
                raise ValueError(ONE_IMAGE)
        pooled = self.conv(x.mean(dim=(2, 3), keepdim=True))
        return pooled.expand(-1, -1, x.shape[2], x.shape[3])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: (N, C_in, h, w) -> (N, C, h, w).

    Args:
        dilations: of the three 3x3 convolutions beside the 1x1 convolution and the image pooling.
        dropout: probability that a channel of the output is dropped in training.
        norm: see :func:`resnest_d2.modeling.norm.get_norm`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dilations: tuple[int, int, int],
        dropout: float,
        norm,
    ):
        super().__init__()
        if len(dilations) != 3 or min(dilations) < 1:
            raise ArgumentError("aspp_dilations", f"must be 3 numbers above 0, got {dilations}")
        first, second, third = dilations
        self.b0 = _conv(in_channels, out_channels, 1, norm=norm)
        self.b1 = _conv(in_channels, out_channels, 3, dilation=first, norm=norm)
        self.b2 = _conv(in_channels, out_channels, 3, dilation=second, norm=norm)
        self.b3 = _conv(in_channels, out_channels, 3, dilation=third, norm=norm)
        self.b4 = ImagePooling(in_channels, out_channels, norm=norm)
        self.project = _conv(5 * out_channels, out_channels, 1, norm=norm)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [self.b0(x), self.b1(x), self.b2(x), self.b3(x), self.b4(x)]
        return self.dropout(self.project(torch.cat(branches, dim=1)))


class PixelClassifier(nn.Module):
    """A 3x3 convolution, dropout and a 1x1 convolution: (N, C_in, h, w) -> (N, classes, h, w)."""

    def __init__(self, in_channels: int, channels: int, num_classes: int, *, norm):
        super().__init__()
        self.conv = _conv(in_channels, channels, 3, norm=norm)
        self.dropout = nn.Dropout(0.1)
        self.predictor = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.predictor(self.dropout(self.conv(x)))


class _PublishedHead(nn.Module):
    """What both heads share: the auxiliary head, the losses, the size of the logits.

    An auxiliary head, a :class:`PixelClassifier` on an earlier feature map, has a loss in training.

    Args:
        input_shape: of the backbone's feature maps.
        in_features: the feature map of the auxiliary head, which may be left out where
            ``aux_loss_weight`` is 0, and then that of the head.
        num_classes: number of classes.
        norm: see :func:`resnest_d2.modeling.norm.get_norm`.
        ignore_value: label of pixels without a class; they have no loss.
        loss_type: ``"cross_entropy"``, the mean over the pixels that have a class, or
            ``"hard_pixel_mining"``, the mean over the fifth of all pixels with the highest loss.
        loss_weight, aux_loss_weight: factors of the two losses.

    Raises:
        ArgumentError: an invalid value.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        in_features: list[str],
        num_classes: int,
        norm="BN",
        ignore_value: int = 255,
        loss_type: str = "cross_entropy",
        loss_weight: float = 1.0,
        aux_loss_weight: float = 0.2,
    ):
        super().__init__()
        if len(in_features) != 2 and (aux_loss_weight > 0 or len(in_features) != 1):
            raise ArgumentError(
                "in_features",
                f"must be two (one where aux_loss_weight is 0), got {in_features}",
            )
        for name in in_features:
            check_choice("in_features", name, input_shape)
        check_choice("loss_type", loss_type, _LOSS_TYPES)
        self.in_features = list(in_features)
        self.in_channels = input_shape[in_features[-1]].channels
        self.stride = input_shape[in_features[-1]].stride
        self.ignore_value = ignore_value
        self.loss_type = loss_type
        self.loss_weight = loss_weight
        self.aux_loss_weight = aux_loss_weight
        self.aux_head = None
        if aux_loss_weight > 0:
            channels = input_shape[in_features[0]].channels
            self.aux_head = PixelClassifier(channels, _AUX_CHANNELS, num_classes, norm=norm)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        check_choice("MODEL.SEM_SEG_HEAD.LOSS_TYPE", head.LOSS_TYPE, _LOSS_TYPES)
        return {
            "input_shape": input_shape,
            "in_features": head.IN_FEATURES,
            "num_classes": head.NUM_CLASSES,
            "channels": head.CONVS_DIM,
            "norm": head.NORM,
            "ignore_value": head.IGNORE_VALUE,
            "loss_type": head.LOSS_TYPE,
            "loss_weight": head.LOSS_WEIGHT,
            "aux_loss_weight": head.AUX_LOSS_WEIGHT,
        }

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the classes at the feature map's size: (N, C, h, w) -> (N, classes, h, w)."""
        raise NotImplementedError

    def forward(
        self, features: dict[str, torch.Tensor], targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """The losses in training, otherwise logits of the size of the image.

        Args:
            features: of the backbone, by name.
            targets: class numbers, int64 (N, H, W).

        Returns:
            None and the losses by name; or logits (N, classes, H, W) and no losses. H and W are
            the image's, rounded up to a multiple of the feature map's stride.
        """
        logits = self.logits(features[self.in_features[-1]])
        if not self.training:
            return self.enlarge(logits), {}
        losses = {"loss_sem_seg": self.loss_weight * self.loss(logits, targets)}
        if self.aux_head is not None:
            logits = self.aux_head(features[self.in_features[0]])
            losses["loss_sem_seg_aux"] = self.aux_loss_weight * self.loss(logits, targets)
        return None, losses

    def enlarge(self, logits: torch.Tensor) -> torch.Tensor:
        """Interpolate logits by the stride, with aligned corners, as the published models do."""
        size = (logits.shape[2] * self.stride, logits.shape[3] * self.stride)
        return F.interpolate(logits, size, mode="bilinear", align_corners=True)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of logits (N, classes, h, w) against class numbers (N, H, W)."""
        height, width = targets.shape[1:]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # from bfloat16
        logits = self.enlarge(logits)[:, :, :height, :width]
        losses = F.cross_entropy(
            logits, targets, ignore_index=self.ignore_value, reduction="none"
        ).flatten()
        if self.loss_type == "hard_pixel_mining":
            return losses.topk(int(_HARDEST * len(losses))).values.mean()
        # 0 where no pixel has a class; PyTorch's own mean is NaN there.
        return losses.sum() / (targets != self.ignore_value).sum().clamp(min=1)


@SEM_SEG_HEADS_REGISTRY.register()
class ResNeStFCNHead(_PublishedHead):
    """FCN: a :class:`PixelClassifier` on the last feature map.

    Args:
        channels: of its 3x3 convolution.
        input_shape, num_classes, norm, kwargs: see :class:`_PublishedHead`.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        channels: int = 512,
        norm="BN",
        **kwargs,
    ):
        super().__init__(input_shape, num_classes=num_classes, norm=norm, **kwargs)
        self.fcn = PixelClassifier(self.in_channels, channels, num_classes, norm=norm)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.fcn(x)


@SEM_SEG_HEADS_REGISTRY.register()
class ResNeStDeepLabV3Head(_PublishedHead):
    """DeepLabV3: :class:`ASPP` on the last feature map, and a :class:`PixelClassifier`.

    Args:
        channels: of the 3x3 convolution behind ASPP.
        aspp_channels, aspp_dilations, aspp_dropout: see :class:`ASPP`.
        input_shape, num_classes, norm, kwargs: see :class:`_PublishedHead`.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        channels: int = 256,
        aspp_channels: int = 256,
        aspp_dilations: tuple[int, int, int] = (12, 24, 36),
        aspp_dropout: float = 0.5,
        norm="BN",
        **kwargs,
    ):
        super().__init__(input_shape, num_classes=num_classes, norm=norm, **kwargs)
        self.aspp = ASPP(
            self.in_channels,
            aspp_channels,
            dilations=aspp_dilations,
            dropout=aspp_dropout,
            norm=norm,
        )
        self.classifier = PixelClassifier(aspp_channels, channels, num_classes, norm=norm)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            **super().from_config(cfg, input_shape),
            "aspp_channels": head.ASPP_CHANNELS,
            "aspp_dilations": head.ASPP_DILATIONS,
            "aspp_dropout": head.ASPP_DROPOUT,
        }

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.aspp(x))

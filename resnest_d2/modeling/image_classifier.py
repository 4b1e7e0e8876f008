"""Image classification on a Detectron2 backbone, as a meta-architecture.

The published classifiers are a ResNeSt, the mean over the last feature map and a linear layer.
Their training mixes images in pairs (mixup, arXiv 1710.09412; CutMix, arXiv 1905.04899), smooths
labels and starts from residual branches that are zero.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

from detectron2.config import CfgNode, configurable
from detectron2.layers import CNNBlockBase
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone


@META_ARCH_REGISTRY.register()
class ImageClassifier(nn.Module):
    """A backbone, the mean over its last feature map, and a linear layer.

    Args:
        backbone: the last of its feature maps is used.
        num_classes: number of classes.
        pixel_mean, pixel_std: one value per channel of the input.
        dropout: probability that a value before the linear layer is dropped in training.
        label_smoothing: share of the target that is spread over all classes.
        mixup, cutmix: parameter of the Beta distribution from which the shares of two mixed images
            are drawn; 0: not used. With both, each batch uses one of them, at random.
        zero_init_residual: start with zero in the last norm of each residual block.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        num_classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        zero_init_residual: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.in_feature, shape = list(backbone.output_shape().items())[-1]
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(shape.channels, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self.label_smoothing = label_smoothing
        # With one class there is nothing to mix, and torchvision refuses it.
        with torch.device("cpu"):  # their checks read values, which "meta" does not have
            self.mixers = [
                mixer(alpha=alpha, num_classes=num_classes)
                for mixer, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix))
                if alpha and num_classes > 1
            ]
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        if zero_init_residual:
            for module in backbone.modules():
                norm = getattr(getattr(module, "conv3", None), "norm", None)
                if isinstance(module, CNNBlockBase) and norm is not None:
                    nn.init.zeros_(norm.weight)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        keys = cfg.RESNEST.CLASSIFIER
        return {
            "backbone": build_backbone(cfg),
            "num_classes": keys.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "dropout": keys.DROPOUT,
            "label_smoothing": keys.LABEL_SMOOTHING,
            "mixup": keys.MIXUP,
            "cutmix": keys.CUTMIX,
            "zero_init_residual": keys.ZERO_INIT_RESIDUAL,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Scores before the softmax of normalised images: (N, C, H, W) -> (N, classes)."""
        features = self.backbone(images)[self.in_feature]  # (N, C', h, w)
        return self.linear(self.dropout(features.mean(dim=(2, 3))))

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """The loss in training, otherwise the probabilities of the classes.

        Args:
            batched_inputs: with ``image`` (C, H, W), all of one size, and in training ``label``.

        Returns:
            ``{"loss_cls": …}``, or for each image ``{"probabilities": (classes,)}``.
        """
        images = torch.stack([item["image"].to(self.device) for item in batched_inputs])
        images = (images - self.pixel_mean) / self.pixel_std
        if not self.training:
            probabilities = _at_least_float32(self.logits(images)).softmax(dim=1)
            return [{"probabilities": row} for row in probabilities]
        labels = torch.tensor([item["label"] for item in batched_inputs], device=self.device)
        if self.mixers:
            mixer = self.mixers[int(torch.randint(len(self.mixers), ()))]
            images, labels = mixer(images, labels)  # labels: (N, classes), float
        logits = _at_least_float32(self.logits(images))
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return {"loss_cls": loss}


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Half precision, of autocast, as float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

"""The networks as ImageNet classifiers: quoted accuracy, measured cost."""

from dataclasses import dataclass

from ..modeling.resnest import VARIANTS
from .measured import Measured, measured_classifier

_README = "README of the official project"
_TIMM = "results of timm, whose weights these are"
_ABLATION = "ablation table of the official project"


@dataclass(frozen=True)
class Classifier:
    """One network with a head of 1000 classes.

    Attributes:
        name: variant, as for ``ResNeSt.from_variant``, and name of its weights.
        crop: side of the square image that the accuracy was measured on, pixels.
        top1: quoted accuracy of the PyTorch weights on ImageNet's validation set, %.
        source: where that is printed.
        quoted_params: parameters as the ablation prints them, millions; None elsewhere.
        quoted_multiply_adds: the same, thousand millions for one image of 224 x 224 pixels.
    """

    name: str
    crop: int
    top1: float
    source: str
    quoted_params: float | None = None
    quoted_multiply_adds: float | None = None

    @property
    def radix(self) -> int:
        return VARIANTS[self.name].get("radix", 2)

    @property
    def cardinality(self) -> int:
        return VARIANTS[self.name].get("num_groups", 1)

    @property
    def width(self) -> int:
        """Channels of a group in the first stage."""
        return VARIANTS[self.name].get("bottleneck_width", 64)

    def measured(self, size: int) -> Measured | None:
        """Cost of one image of ``size`` x ``size`` pixels, 224 or :attr:`crop`."""
        return measured_classifier(self.name, size)


CLASSIFIERS: dict[str, Classifier] = {
    classifier.name: classifier
    for classifier in (
        Classifier("resnest14", 224, 75.516, _TIMM),
        Classifier("resnest26", 224, 78.476, _TIMM),
        Classifier("resnest50", 224, 81.03, _README),
        Classifier("resnest101", 256, 82.83, _README),
        Classifier("resnest200", 320, 83.84, _README),
        Classifier("resnest269", 416, 84.54, _README),
        Classifier("resnest50_fast_1s1x64d", 224, 80.33, _ABLATION, 26.3, 4.34),
        Classifier("resnest50_fast_2s1x64d", 224, 80.53, _ABLATION, 27.5, 4.34),
        Classifier("resnest50_fast_4s1x64d", 224, 80.76, _ABLATION, 31.9, 4.35),
        Classifier("resnest50_fast_1s2x40d", 224, 80.59, _ABLATION, 25.9, 4.38),
        Classifier("resnest50_fast_2s2x40d", 224, 80.61, _ABLATION, 26.9, 4.38),
        Classifier("resnest50_fast_4s2x40d", 224, 81.14, _ABLATION, 30.4, 4.41),
        Classifier("resnest50_fast_1s4x24d", 224, 80.99, _ABLATION, 25.7, 4.42),
    )
}
"""Every network of the paper with published weights, by name."""

"""Images for classification: random crops in training, the published centre crop in evaluation.

Training: a policy of random operations, a random crop that is resized, a flip, colour jitter,
lighting, erasing, in the order of the official ResNeSt code; all but lighting are torchvision's.
Evaluation: EfficientNet's centre crop, whose side is S / (S + 32) of the short side for images of S
pixels.
"""

import math

import torch
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode, v2

from detectron2.config import CfgNode

from ...errors import check_choice
from ..image_reader import load_image
from ..intensity import Intensity

_POLICIES = ("", "randaugment", "autoaugment", "trivialaugment")
_ASPECT_RATIOS = (3 / 4, 4 / 3)
_BINS = 31  # magnitudes of RandAugment are 0 to 30

# Principal components of ImageNet's colours, RGB from 0 to 1 (AlexNet's; the numbers of fb.resnet).
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


class Lighting(nn.Module):
    """Adds the same random colour to all pixels of an image (3, H, W), RGB, 0-255."""

    def __init__(self, std: float):
        super().__init__()
        self.std = std

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        weights = torch.randn(3) * self.std * torch.tensor(_EIGENVALUES)
        return image + 255 * (torch.tensor(_EIGENVECTORS) @ weights).view(3, 1, 1)


class ClassMapper:
    """From a record of an image and its class to an example of an ``ImageClassifier``.

    The image becomes (3, S, S) in the channel order of ``INPUT.FORMAT``, 0-255.
    """

    def __init__(self, cfg: CfgNode, is_train: bool):
        self._intensity = Intensity.from_config(cfg)
        self._transform = _training(cfg) if is_train else CentreCrop(cfg)
        self._reverse = is_train and cfg.INPUT.FORMAT == "BGR"

    def __call__(self, record: dict) -> dict:
        image, _ = load_image(record["file_name"], self._intensity)
        example = {**record, "height": image.height, "width": image.width}
        example["image"] = self._transform(image)
        if self._reverse:
            example["image"] = example["image"].flip(0)
        return example


class CentreCrop:
    """The images of evaluation: RGB of Pillow -> uint8 (3, S, S) in ``INPUT.FORMAT``.

    Attributes:
        size: S, pixels.
        share: of the image's short side, 0-1.
    """

    def __init__(self, cfg: CfgNode):
        keys = cfg.RESNEST.CLASSIFIER
        self.size = keys.TEST_SIZE
        self.share = keys.TEST_SIZE / (keys.TEST_SIZE + keys.TEST_MARGIN)
        self._reverse = cfg.INPUT.FORMAT == "BGR"

    def __call__(self, image: Image.Image) -> torch.Tensor:
        side = max(1, self.share * min(image.size))
        left, top = (round((length - side) / 2) for length in image.size)
        image = image.crop((left, top, left + side, top + side))
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = v2.functional.pil_to_tensor(image)
        return pixels.flip(0) if self._reverse else pixels


def _training(cfg: CfgNode) -> v2.Compose:
    keys, jitter = cfg.RESNEST.CLASSIFIER, cfg.RESNEST.CLASSIFIER.COLOR_JITTER
    bilinear = {"interpolation": InterpolationMode.BILINEAR}
    steps: list[nn.Module] = []
    if keys.POLICY == "randaugment":
        operations, magnitude = keys.RANDAUGMENT
        steps.append(v2.RandAugment(operations, magnitude, _BINS, **bilinear))
    elif keys.POLICY == "autoaugment":
        steps.append(v2.AutoAugment(**bilinear))
    elif keys.POLICY == "trivialaugment":
        steps.append(v2.TrivialAugmentWide(**bilinear))
    area = tuple(keys.CROP_AREA)
    steps.append(v2.RandomResizedCrop(keys.TRAIN_SIZE, area, _ASPECT_RATIOS, **bilinear))
    if cfg.INPUT.RANDOM_FLIP == "horizontal":
        steps.append(v2.RandomHorizontalFlip())
    if jitter:
        steps.append(v2.ColorJitter(jitter, jitter, jitter))
    steps.append(v2.PILToTensor())
    if keys.LIGHTING:
        steps.append(Lighting(keys.LIGHTING))
    if keys.ERASING:
        mean = cfg.MODEL.PIXEL_MEAN
        rgb = mean[::-1] if cfg.INPUT.FORMAT == "BGR" else mean
        steps += [v2.ToDtype(torch.float32), v2.RandomErasing(keys.ERASING, value=list(rgb))]
    return v2.Compose(steps)


def check_classifier(cfg: CfgNode) -> None:
    """Raise a ValueError, with its key, where ``RESNEST.CLASSIFIER`` is invalid."""
    keys = cfg.RESNEST.CLASSIFIER
    check_choice("RESNEST.CLASSIFIER.POLICY", keys.POLICY, _POLICIES)
    check_choice("INPUT.RANDOM_FLIP", cfg.INPUT.RANDOM_FLIP, ("horizontal", "none"))
    check_choice("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB", "BGR"))
    area, policy = keys.CROP_AREA, keys.RANDAUGMENT
    sound_area = len(area) == 2 and {*map(type, area)} <= {int, float}
    sound_policy = len(policy) == 2 and {*map(type, policy)} == {int}
    sound_policy = sound_policy and policy[0] >= 0 and 0 <= policy[1] < _BINS
    for name, valid, allowed in (
        ("NUM_CLASSES", keys.NUM_CLASSES >= 1, "at least 1"),
        ("DROPOUT", 0 <= keys.DROPOUT < 1, "at least 0 and less than 1"),
        ("LABEL_SMOOTHING", 0 <= keys.LABEL_SMOOTHING <= 1, "from 0 to 1"),
        ("MIXUP", keys.MIXUP == 0 or 0.001 <= keys.MIXUP <= 1000, "0, or from 0.001 to 1000"),
        ("CUTMIX", keys.CUTMIX == 0 or 0.001 <= keys.CUTMIX <= 1000, "0, or from 0.001 to 1000"),
        ("TRAIN_SIZE", keys.TRAIN_SIZE >= 1, "at least 1"),
        ("TEST_SIZE", keys.TEST_SIZE >= 1, "at least 1"),
        ("TEST_MARGIN", keys.TEST_MARGIN >= 0, "at least 0"),
        (
            "CROP_AREA",
            sound_area and 0 < area[0] <= area[1] <= 1,
            "two numbers, the second not below the first, above 0 and at most 1",
        ),
        ("RANDAUGMENT", sound_policy, "a number of operations and a magnitude from 0 to 30"),
        ("COLOR_JITTER", 0 <= keys.COLOR_JITTER < math.inf, "at least 0"),
        ("LIGHTING", 0 <= keys.LIGHTING < math.inf, "at least 0"),
        ("ERASING", 0 <= keys.ERASING <= 1, "from 0 to 1"),
    ):
        if not valid:
            raise ValueError(f"RESNEST.CLASSIFIER.{name} must be {allowed}, got {keys[name]}")
    if cfg.RESNEST.JITTER.SIZE:
        raise ValueError(
            "RESNEST.JITTER.SIZE must be 0 for an ImageClassifier: its images are cropped by "
            "RESNEST.CLASSIFIER.CROP_AREA"
        )

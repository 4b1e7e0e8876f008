"""Parts of a model as functions from one image to tensors, for export.

All take an image (3, H, W), RGB, 0-255, float32, of any size, and apply the channel order, the
statistics and the padding of the model. They call Detectron2's code, with one exception: choosing
masks by class and pasting them into the image, where tracing would make sizes constant.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, PanopticFPN, RetinaNet, SemanticSegmentor
from detectron2.modeling.backbone import FPN
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Boxes, ImageList

from ..errors import check_choice
from ..inference import fold_batch_norms
from ..modeling import ImageClassifier
from ..modeling.forward_parts import dense_predictions

PARTS = ("model", "backbone", "bottom_up")


def build_part(
    model: nn.Module, cfg: CfgNode, part: str, *, nms: bool = True, fold: bool = True
) -> "_Part":
    """A part of a copy of a model, on the CPU.

    Args:
        model: a detector of Detectron2, a ``SemanticSegmentor`` or an ``ImageClassifier``, in
            evaluation mode.
        cfg: its config.
        part: ``"model"``, the whole of it; ``"backbone"``, the input of the heads (with FPN: p2 to
            p6); or ``"bottom_up"``, the network below an FPN (res2 to res5).
        nms: False for scores and boxes of all anchors instead of detections.
        fold: fold the batch norms into the convolutions.

    Raises:
        ValueError: the model has no such part, or it cannot be exported.
    """
    check_choice("the part", part, PARTS)
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    if fold:
        fold_batch_norms(model)
    rgb = cfg.INPUT.FORMAT == "RGB"
    if part == "bottom_up":
        if not isinstance(model.backbone, FPN):
            raise ValueError('the backbone has no FPN: its features are the part "backbone"')
        return Features(model, model.backbone.bottom_up, name=part, rgb=rgb)
    if part == "backbone":
        return Features(model, model.backbone, name=part, rgb=rgb)
    if isinstance(model, SemanticSegmentor):
        return Segmentor(model, rgb=rgb)
    if isinstance(model, ImageClassifier):
        return Classifier(model, rgb=rgb)
    if not nms:
        if not isinstance(model, RetinaNet):
            raise ValueError(
                f"{type(model).__name__} needs non-maximum suppression between its two stages: "
                "only a RetinaNet can be exported without it"
            )
        return DenseOutputs(model, rgb=rgb)
    _require_boxes_and_masks(model)
    return Detector(model, rgb=rgb)


def _require_boxes_and_masks(model: nn.Module) -> None:
    if isinstance(model, RetinaNet):
        return
    name = type(model).__name__
    if isinstance(model, PanopticFPN):
        raise ValueError(f"{name}: a file holds boxes and masks, not panoptic segments")
    if not isinstance(model, GeneralizedRCNN):
        raise ValueError(
            f"{name} must be a GeneralizedRCNN, RetinaNet, SemanticSegmentor or ImageClassifier"
        )
    if not isinstance(model.roi_heads, StandardROIHeads):
        heads = type(model.roi_heads).__name__
        raise ValueError(f"{heads} must be StandardROIHeads or CascadeROIHeads")
    if model.roi_heads.keypoint_on:
        raise ValueError("a file holds boxes and masks, not keypoints")


class _Part(nn.Module):
    """Base class: preprocesses the image.

    Attributes:
        name: what a file of it is, for the metadata.
        output_names: of the tensors that ``forward`` returns.
        dynamic_axes: by output, the axes whose size depends on the image, with names.
    """

    name: str
    output_names: list[str]
    dynamic_axes: dict[str, dict[int, str]]

    def __init__(self, model: nn.Module, *, rgb: bool):
        super().__init__()
        self.model = model
        self.rgb = rgb
        self.eval()

    @property
    def smallest_side(self) -> int:
        """Pixels. From this size all feature maps are larger than one, which torch.export needs:
        it treats a size of one as a special case.
        """
        return 1 + max(shape.stride for shape in self.model.backbone.output_shape().values())

    def preprocess(self, image: torch.Tensor) -> ImageList:
        """Normalise and pad an RGB image (3, H, W).

        Equals Detectron2's ``preprocess_image``, which torch.export cannot export.
        """
        if not self.rgb:
            image = image.flip(0)
        height, width = image.shape[-2:]
        multiple = max(self.model.backbone.size_divisibility, 1)
        image = (image - self.model.pixel_mean) / self.model.pixel_std
        padded = F.pad(image, (0, -width % multiple, 0, -height % multiple))
        return ImageList(padded[None], [(height, width)])


class Detector(_Part):
    """Detections of an image.

    Returns boxes (N, 4): x0, y0, x1, y1 in pixels; scores (N,), descending; classes (N,), int64;
    and with a mask head masks (N, H, W), bool.
    """

    name = "detector"

    def __init__(self, model: nn.Module, *, rgb: bool):
        super().__init__(model, rgb=rgb)
        self.output_names = ["boxes", "scores", "classes"]
        self.dynamic_axes = {name: {0: "detections"} for name in self.output_names}
        self.has_masks = getattr(getattr(model, "roi_heads", None), "mask_on", False)
        if self.has_masks:
            self.output_names.append("masks")
            self.dynamic_axes["masks"] = {0: "detections", 1: "height", 2: "width"}
            model.roi_heads.mask_on = False  # forward computes them

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model, images = self.model, self.preprocess(image)
        features = model.backbone(images.tensor)
        if isinstance(model, RetinaNet):
            features = [features[name] for name in model.head_in_features]
            (found,) = model.forward_inference(images, features, model.head(features))
        else:
            proposals, _ = model.proposal_generator(images, features, None)
            (found,), _ = model.roi_heads(images, features, proposals, None)
        found.pred_boxes.clip(images.image_sizes[0])
        found = found[found.pred_boxes.nonempty()]
        boxes, classes = found.pred_boxes.tensor, found.pred_classes
        outputs = boxes, found.scores, classes
        if not self.has_masks:
            return outputs
        heads = model.roi_heads
        pooled = heads.mask_pooler(
            [features[name] for name in heads.mask_in_features], [found.pred_boxes]
        )
        masks = heads.mask_head.layers(pooled)  # (N, 1 or classes, h, w)
        if masks.shape[1] == 1:
            masks = masks[:, 0]
        else:
            masks = masks[torch.arange(classes.shape[0]), classes]
        pasted = paste_masks(masks.sigmoid(), boxes, image.shape[-2], image.shape[-1])
        return *outputs, pasted >= 0.5


class DenseOutputs(_Part):
    """The outputs of a RetinaNet before non-maximum suppression.

    Returns boxes (A, 4) of all anchors of all levels: x0, y0, x1, y1 in pixels, not clipped to the
    image; and scores (A, classes), 0-1.
    """

    name = "detector"
    output_names = ["boxes", "scores"]
    dynamic_axes = {name: {0: "anchors"} for name in output_names}

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        model, images = self.model, self.preprocess(image)
        features, logits, deltas = dense_predictions(model, images.tensor)
        anchors = Boxes.cat(model.anchor_generator(features)).tensor
        boxes = model.box2box_transform.apply_deltas(deltas[0], anchors)
        return boxes, logits[0].sigmoid()


class Segmentor(_Part):
    """The class of each pixel.

    Returns labels (H, W), class numbers, int64; and scores (H, W), the probability of that class,
    0-1.
    """

    name = "segmentor"
    output_names = ["labels", "scores"]
    dynamic_axes = {name: {0: "height", 1: "width"} for name in output_names}

    def __init__(self, model: nn.Module, *, rgb: bool):
        super().__init__(model, rgb=rgb)
        if hasattr(model.sem_seg_head, "aux_head"):
            model.sem_seg_head.aux_head = None  # for training alone, and a file would hold it

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.model.backbone(self.preprocess(image).tensor)
        (logits,), _ = self.model.sem_seg_head(features)  # (classes, H, W) of the padded image
        # A negative pad crops. For torch.export it is a constant whether a slice is contiguous.
        crop = (0, image.shape[-1] - logits.shape[-1], 0, image.shape[-2] - logits.shape[-2])
        labels, scores = logits.argmax(dim=0), logits.softmax(dim=0).amax(dim=0)
        return F.pad(labels, crop), F.pad(scores, crop)


class Classifier(_Part):
    """The probability of each class, scores (classes,), 0-1."""

    name = "classifier"
    output_names = ["scores"]
    dynamic_axes = {}

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.model.logits(self.preprocess(image).tensor)[0].softmax(dim=0),)


class Features(_Part):
    """The feature maps (C, h, w) of a backbone, by name."""

    def __init__(self, model: nn.Module, backbone: nn.Module, *, name: str, rgb: bool):
        super().__init__(model, rgb=rgb)
        self.backbone = backbone
        self.name = name
        self.output_names = list(backbone.output_shape())
        self.dynamic_axes = {
            name: {1: f"{name}_height", 2: f"{name}_width"} for name in self.output_names
        }

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.backbone(self.preprocess(image).tensor)
        return tuple(features[name][0] for name in self.output_names)


def paste_masks(masks: torch.Tensor, boxes: torch.Tensor, height, width) -> torch.Tensor:
    """Paste masks of boxes into the image, as Detectron2's ``paste_masks_in_image``.

    Bilinear interpolation as a product with one matrix per axis, which every format supports.

    Args:
        masks: (N, h, w) probabilities.
        boxes: (N, 4) in pixels.

    Returns:
        (N, height, width) probabilities.
    """
    rows = _interpolation(boxes[:, 1], boxes[:, 3], height, masks.shape[-2])
    columns = _interpolation(boxes[:, 0], boxes[:, 2], width, masks.shape[-1])
    return rows @ masks @ columns.transpose(1, 2)


def _interpolation(start: torch.Tensor, end: torch.Tensor, size, samples: int) -> torch.Tensor:
    """Weights of the samples between ``start`` and ``end`` in each pixel: (N, size, samples)."""
    pixels = torch.arange(size, dtype=torch.float32) + 0.5
    places = (pixels - start[:, None]) / (end - start)[:, None] * samples - 0.5
    return (1 - (places[:, :, None] - torch.arange(samples)).abs()).clamp(min=0)

"""The part of each pixel in a score of the output: integrated gradients (arXiv 1703.01365).

captum integrates the gradient of the score from an image of the mean colour to the image. The parts
sum to the difference of the two scores; a negative part speaks against the class.

On this path the score is always taken at the same place: in the box that the detection's proposal
became in each stage of the heads, or at a RetinaNet's anchor. The position of the box is not
explained.

Semantic segmentation has no detections. There the score is the mean probability of a class over the
pixels that are predicted as this class, and the classes of an image stand in place of detections.
"""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from detectron2.modeling import GeneralizedRCNN, RetinaNet, SemanticSegmentor
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import BitMasks, Boxes, ImageList, Instances

from ..files import writing
from ..modeling import ImageClassifier
from ..modeling.forward_parts import dense_predictions, network_input
from ..progress import progress_bar

_STEPS = 64  # of the integral
_LIKELY = 5  # classes of a classified image


@dataclass(frozen=True)
class Saliency:
    """The parts of a detection's score.

    Attributes:
        attribution: float32 (h, w), what each pixel of the resized image adds to the score.
        box: float32 (4,), x0, y0, x1, y1 of the detection, in pixels of the resized image.
        label: class index.
        score: of the detection, 0-1.
        baseline: the score of an image of the mean colour at the same place.
        region: bool (h, w), the pixels of a class in place of a detection, which ``box`` encloses.
    """

    attribution: np.ndarray
    box: np.ndarray
    label: int
    score: float
    baseline: float
    region: np.ndarray | None = None

    @property
    def error(self) -> float:
        """The sum of the attribution less ``score - baseline``, which it should equal."""
        return float(self.attribution.sum(dtype=np.float64)) - (self.score - self.baseline)

    def save(self, file: str | os.PathLike) -> None:
        """Write a numpy archive (``.npz``) with the attributes as keys."""
        with writing(file) as archive:
            values = dataclasses.asdict(self)
            np.savez_compressed(archive, **{k: v for k, v in values.items() if v is not None})

    @property
    def place(self) -> str:
        """What :meth:`share_inside` is about: "box" or "region"."""
        return "box" if self.region is None else "region"

    def share_inside(self) -> tuple[float, float]:
        """The share of the attribution's magnitude in the box or region, and that of the pixels."""
        inside = self.region
        if inside is None:
            x0, y0, x1, y1 = self.box
            rows, columns = (np.arange(side) + 0.5 for side in self.attribution.shape)
            inside = np.outer((y0 <= rows) & (rows <= y1), (x0 <= columns) & (columns <= x1))
        magnitude = abs(self.attribution)
        return float(magnitude[inside].sum() / magnitude.sum()), float(inside.mean())


def explain_detection(model: nn.Module, inputs: dict, detection: int = 0) -> Saliency:
    """Divide the score of one detection between the pixels, by 64 forward and backward passes.

    Args:
        model: see :func:`check_saliency`.
        inputs: of one image, as Detectron2's models take them.
        detection: its index in the model's output.

    Raises:
        ModuleNotFoundError: captum is not installed.
        ValueError: an unsupported model, or no such detection.
    """
    check_saliency(model)
    from captum.attr import IntegratedGradients

    images = network_input(model, inputs)
    found = follow_detections(model, images)
    if not 0 <= detection < len(found):
        raise ValueError(
            f"the detection must be a number below {len(found)}, which were found, got {detection}"
        )
    baseline = torch.zeros_like(images.tensor)  # the mean colour, as padding
    with progress_bar(total=_STEPS, desc="saliency") as progress:

        def score(pixels: torch.Tensor) -> torch.Tensor:
            progress.update(len(pixels))
            return found.score(pixels, detection)

        attribution = IntegratedGradients(score).attribute(
            images.tensor, baseline, n_steps=_STEPS, internal_batch_size=1
        )
    with torch.no_grad():
        of_baseline = float(found.score(baseline, detection))
    height, width = images.image_sizes[0]
    instance = found.instances[detection]
    return Saliency(
        attribution=attribution[0, :, :height, :width].sum(dim=0).float().cpu().numpy(),
        box=instance.pred_boxes.tensor[0].cpu().numpy(),
        label=int(instance.pred_classes),
        score=float(instance.scores),
        baseline=of_baseline,
        region=_region(model, instance),
    )


def _region(model: nn.Module, instance: Instances) -> np.ndarray | None:
    """The pixels of a class, bool (h, w); None for a detection."""
    if isinstance(model, SemanticSegmentor):
        return instance.regions[0].cpu().numpy()
    return np.ones(instance.image_size, bool) if isinstance(model, ImageClassifier) else None


def check_saliency(model: nn.Module) -> None:
    """Refuse what :func:`explain_detection` cannot explain.

    Raises:
        ModuleNotFoundError: captum is not installed.
        ValueError: the model is neither a RetinaNet, a SemanticSegmentor or an ImageClassifier nor
            an R-CNN (Faster, Mask, Keypoint, Cascade, panoptic) with Detectron2's heads for an FPN.
    """
    try:
        import captum.attr  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "saliency needs captum: pip install 'resnest-d2[explain]'"
        ) from error
    if isinstance(model, tuple(_FOLLOW)):
        return
    name, heads = type(model).__name__, type(getattr(model, "roi_heads", None))
    if not isinstance(model, GeneralizedRCNN):
        raise ValueError(
            "saliency is for GeneralizedRCNN, RetinaNet, SemanticSegmentor and ImageClassifier, "
            f"got {name}"
        )
    if heads not in (StandardROIHeads, CascadeROIHeads):
        raise ValueError(
            f"saliency is for StandardROIHeads and CascadeROIHeads, got {heads.__name__}"
        )


@dataclass(frozen=True)
class Followed:
    """Detections of one image, as in the model's output but in pixels of its input.

    Attributes:
        score: ``score(pixels, i)`` is the score of detection i in each of some normalised images
            (B, 3, H, W): (B,).
    """

    instances: Instances
    score: Callable[[torch.Tensor, int], torch.Tensor]

    def __len__(self) -> int:
        return len(self.instances)


def follow_detections(model: nn.Module, images: ImageList) -> Followed:
    """The detections in one normalised, padded image, with their scores as functions of pixels."""
    follow = next((f for kind, f in _FOLLOW.items() if isinstance(model, kind)), _follow_regions)
    with torch.no_grad():
        found, score = follow(model, images)
    found.pred_boxes.clip(images.image_sizes[0])
    found = found[found.pred_boxes.nonempty()]  # as in the model's output
    return Followed(found, partial(score, found))


def _follow_regions(model: GeneralizedRCNN, images: ImageList) -> tuple[Instances, Callable]:
    """An R-CNN's detections, in the boxes that each stage of its heads gets (one if no cascade)."""
    size, heads = images.image_sizes[0], model.roi_heads
    stages = [(heads.box_head, heads.box_predictor)]
    if isinstance(heads, CascadeROIHeads):
        stages = list(zip(heads.box_head, heads.box_predictor, strict=True))

    def predict(features: dict, regions: list[Boxes], stage: tuple[nn.Module, nn.Module]):
        head, predictor = stage
        pooled = heads.box_pooler([features[name] for name in heads.box_in_features], regions)
        proposals = [Instances(size, proposal_boxes=boxes) for boxes in regions]
        return predictor, predictor(head(pooled)), proposals

    def score(found: Instances, pixels: torch.Tensor, detection: int) -> torch.Tensor:
        features, label, scores = model.backbone(pixels), found.pred_classes[detection], []
        for stage, region in zip(stages, found.regions[detection], strict=True):
            boxes = [Boxes(region[None]) for _ in pixels]
            predictor, predictions, proposals = predict(features, boxes, stage)
            scores.append(torch.cat(predictor.predict_probs(predictions, proposals))[:, label])
        return torch.stack(scores).mean(dim=0)

    features = model.backbone(images.tensor)
    (proposals,), _ = model.proposal_generator(images, features, None)
    regions, seen, scores = proposals.proposal_boxes, [], []
    for stage in stages:
        seen.append(regions.tensor)
        predictor, predictions, proposals = predict(features, [regions], stage)
        scores += predictor.predict_probs(predictions, proposals)
        (boxes,) = predictor.predict_boxes(predictions, proposals)
        if stage is not stages[-1]:  # a cascade's boxes, the same for all classes
            regions = Boxes(boxes)
            regions.clip(size)
    (found,), (rows,) = fast_rcnn_inference(
        [boxes],
        [torch.stack(scores).mean(dim=0)],
        [size],
        predictor.test_score_thresh,
        predictor.test_nms_thresh,
        predictor.test_topk_per_image,
    )
    found.regions = torch.stack(seen, dim=1)[rows]  # (D, stages, 4)
    return found, score


def _follow_anchors(model: RetinaNet, images: ImageList) -> tuple[Instances, Callable]:
    """A RetinaNet's detections; each comes from one anchor."""
    features, logits, deltas = dense_predictions(model, images.tensor)
    anchors = Boxes.cat(model.anchor_generator(features)).tensor
    boxes = model.box2box_transform.apply_deltas(deltas[0], anchors)
    scores = logits[0].sigmoid()  # (A, classes)
    (found,) = model.forward_inference(images, features, model.head(features))
    # Detectron2 does not return the anchor: take the one with the same box and score.
    differences = torch.cdist(found.pred_boxes.tensor, boxes, p=1)  # (D, A)
    differences += abs(found.scores[:, None] - scores[:, found.pred_classes].T)
    found.anchors = differences.argmin(dim=1)

    def score(found: Instances, pixels: torch.Tensor, detection: int) -> torch.Tensor:
        _, logits, _ = dense_predictions(model, pixels)
        return logits[:, found.anchors[detection], found.pred_classes[detection]].sigmoid()

    return found, score


def _follow_pixels(model: SemanticSegmentor, images: ImageList) -> tuple[Instances, Callable]:
    """The classes of a label map, the largest first; each with its pixels, bool (h, w)."""
    height, width = images.image_sizes[0]

    def probabilities(pixels: torch.Tensor) -> torch.Tensor:
        logits, _ = model.sem_seg_head(model.backbone(pixels))
        return logits[:, :, :height, :width].softmax(dim=1)  # (B, classes, h, w)

    def score(found: Instances, pixels: torch.Tensor, detection: int) -> torch.Tensor:
        of_class = probabilities(pixels)[:, found.pred_classes[detection]]
        return of_class[:, found.regions[detection]].mean(dim=1)

    (scores,) = probabilities(images.tensor)
    labels = scores.argmax(dim=0)
    classes, areas = labels.unique(return_counts=True)
    classes = classes[areas.argsort(descending=True, stable=True)]
    regions = labels == classes[:, None, None]  # (D, h, w)
    found = Instances((height, width), pred_classes=classes, regions=regions)
    found.pred_boxes = BitMasks(regions).get_bounding_boxes()
    sums = (scores[classes] * regions).sum(dim=(1, 2))
    found.scores = sums / regions.sum(dim=(1, 2))
    return found, score


def _follow_image(model: ImageClassifier, images: ImageList) -> tuple[Instances, Callable]:
    """The most likely classes; each has the whole image for its box."""

    def score(found: Instances, pixels: torch.Tensor, detection: int) -> torch.Tensor:
        return model.logits(pixels).softmax(dim=1)[:, found.pred_classes[detection]]

    (probabilities,) = model.logits(images.tensor).softmax(dim=1)
    best = probabilities.topk(min(_LIKELY, len(probabilities)))
    height, width = images.image_sizes[0]
    found = Instances((height, width), pred_classes=best.indices, scores=best.values)
    whole = torch.tensor([[0.0, 0.0, width, height]], device=probabilities.device)
    found.pred_boxes = Boxes(whole.expand(len(found), -1).clone())
    return found, score


_FOLLOW: dict[type, Callable] = {
    RetinaNet: _follow_anchors,
    SemanticSegmentor: _follow_pixels,
    ImageClassifier: _follow_image,
}
"""Besides R-CNN: what follows the outputs of a model."""

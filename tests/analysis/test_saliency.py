"""Saliency: the score that is followed is the detection's, and its parts add up to it."""

import sys

import numpy as np
import pytest
import torch
from detections import assert_same_detections
from detectors import image, small_detector
from torch import nn

from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from resnest_d2 import get_config
from resnest_d2.analysis.saliency import (
    Saliency,
    check_saliency,
    explain_detection,
    follow_detections,
)
from resnest_d2.modeling.forward_parts import network_input

FAMILIES = ["faster", "deformable", "mask", "cascade", "keypoint", "RetinaNet", "panoptic"]


@pytest.mark.parametrize("family", FAMILIES)
def test_followed_detections_are_those_of_the_model(family):
    model, inputs = small_detector(family), image(90, 120)  # padded to 96 x 128
    images = model.preprocess_image([inputs])
    with torch.no_grad():
        expected = model([inputs])[0]["instances"]
        followed = follow_detections(model, images)
        found = followed.instances
        names = ("pred_boxes", "scores", "pred_classes")  # it follows no masks
        expected = Instances((90, 120), **{name: expected.get(name) for name in names})
        assert_same_detections(found, expected, scores=1e-5, boxes=0.01)
        assert len(followed) == 20
        two = torch.cat([images.tensor, torch.zeros_like(images.tensor)])
        for number in (0, 7, 19):
            scores = followed.score(two, number)
            torch.testing.assert_close(scores[0], found.scores[number], rtol=1e-4, atol=1e-6)
            assert scores[1] != scores[0]


def test_gradient_is_that_of_the_class_in_the_proposal():
    model = small_detector("faster")
    images = model.preprocess_image([image()])
    followed = follow_detections(model, images)
    pixels = images.tensor.requires_grad_()
    (gradient,) = torch.autograd.grad(followed.score(pixels, 3).sum(), pixels)

    heads, instance = model.roi_heads, followed.instances[3]
    features = model.backbone(pixels)
    pooled = heads.box_pooler(
        [features[f"p{k}"] for k in (2, 3, 4, 5)], [Boxes(instance.regions[0])]
    )
    logits = heads.box_predictor.cls_score(heads.box_head(pooled))
    score = logits.softmax(dim=1)[0, instance.pred_classes[0]]
    (expected,) = torch.autograd.grad(score, pixels)
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 0


def test_gradient_is_that_of_the_class_at_the_anchor():
    model = small_detector("RetinaNet")
    images = model.preprocess_image([image()])
    followed = follow_detections(model, images)
    pixels = images.tensor.requires_grad_()
    (gradient,) = torch.autograd.grad(followed.score(pixels, 2).sum(), pixels)

    instance = followed.instances[2]
    levels = model.head(list(model.backbone(pixels).values()))[0]
    rows = [level[0].permute(1, 2, 0).reshape(-1, 3) for level in levels]  # (h*w*anchors, classes)
    score = torch.cat(rows)[instance.anchors[0], instance.pred_classes[0]].sigmoid()
    (expected,) = torch.autograd.grad(score, pixels)
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 0


def small_segmentor(recipe: str = "deeplabv3_resnest50_ade20k"):
    """A network for semantic segmentation with random weights, which finds several classes."""
    opts = ("MODEL.RESNETS.DEPTH", "14", "MODEL.RESNETS.WIDTH_PER_GROUP", "8", "MODEL.WEIGHTS", "")
    opts += ("MODEL.RESNETS.RES2_OUT_CHANNELS", "32", "MODEL.RESNETS.STEM_WIDTH", "8")
    opts += ("MODEL.SEM_SEG_HEAD.CONVS_DIM", "16", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "16")
    opts += ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "5", "MODEL.DEVICE", "cpu")
    torch.manual_seed(0)
    model = build_model(get_config(recipe, opts)).eval()
    torch.nn.init.normal_(model.sem_seg_head.classifier.predictor.weight)
    return model


def test_the_classes_of_a_segmentor_are_those_of_its_label_map():
    model, inputs = small_segmentor(), image(45, 60)  # padded to 48 x 64
    images = network_input(model, inputs)
    with torch.no_grad():
        logits = model([{"image": inputs["image"]}])[0]["sem_seg"]
        followed = follow_detections(model, images)
    labels, probabilities, found = logits.argmax(0), logits.softmax(0), followed.instances
    areas = [int((labels == label).sum()) for label in found.pred_classes]
    assert sorted(areas, reverse=True) == areas and sum(areas) == 45 * 60 and len(areas) > 1
    for number, label in enumerate(found.pred_classes):
        region = labels == label
        assert torch.equal(found.regions[number], region)
        rows, columns = region.nonzero().T
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert found.pred_boxes.tensor[number].tolist() == box
        score = probabilities[label][region].mean()
        torch.testing.assert_close(found.scores[number], score)
        with torch.no_grad():
            torch.testing.assert_close(followed.score(images.tensor, number)[0], score)


def test_parts_of_a_class_add_up_and_the_share_is_of_its_region(tmp_path):
    model, inputs = small_segmentor(), image(45, 60)
    result = explain_detection(model, inputs, 1)
    assert result.attribution.shape == result.region.shape == (45, 60)
    assert abs(result.error) < 0.1 * abs(result.attribution).sum()
    share, area = result.share_inside()
    magnitude = abs(result.attribution)
    assert share == pytest.approx(magnitude[result.region].sum() / magnitude.sum())
    assert area == result.region.mean() and result.place == "region"
    result.save(tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as saved:
        np.testing.assert_array_equal(saved["region"], result.region)


@pytest.mark.parametrize("family", ["faster", "cascade", "RetinaNet"])
def test_parts_add_up_to_the_score_less_that_of_the_mean_colour(family):
    model, inputs = small_detector(family), image(60, 64)
    inputs["image"][:, 20:40, 10:30] = model.pixel_mean  # nothing to tell from the mean colour
    result = explain_detection(model, inputs, 1)
    with torch.no_grad():
        instances = model([inputs])[0]["instances"]
    assert result.score == pytest.approx(float(instances.scores[1]), rel=1e-5)
    assert result.label == int(instances.pred_classes[1])
    np.testing.assert_allclose(result.box, instances.pred_boxes.tensor[1], rtol=1e-5, atol=1e-4)
    assert result.attribution.shape == (60, 64)
    assert abs(result.error) < 0.05 * abs(result.score - result.baseline)
    assert (result.attribution[20:40, 10:30] == 0).all()
    assert (result.attribution[:20] != 0).mean() > 0.9


def test_share_is_of_the_magnitude_of_pixels_with_their_centre_in_the_box():
    attribution = np.zeros((4, 10), np.float32)
    attribution[1, 2], attribution[2, 3], attribution[3, 9] = 0.5, -0.2, 0.3
    result = Saliency(attribution, np.float32([2, 1, 4, 3]), 0, score=0.9, baseline=0.1)
    share, area = result.share_inside()
    assert (share, area) == (pytest.approx(0.7), 4 / 40)
    assert result.error == pytest.approx(-0.2)


def test_other_models_are_refused_by_name():
    with pytest.raises(ValueError, match="SemanticSegmentor and ImageClassifier, got Linear"):
        check_saliency(nn.Linear(1, 1))
    model = small_detector("faster")
    model.roi_heads = nn.Identity()
    with pytest.raises(ValueError, match="StandardROIHeads and CascadeROIHeads, got Identity"):
        check_saliency(model)


def test_a_detection_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="below 20, which were found, got 20"):
        explain_detection(small_detector("faster"), image(), 20)


def test_without_captum_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'resnest-d2\[explain\]'"):
        check_saliency(small_detector("faster"))

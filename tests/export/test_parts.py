"""What is exported, before it is a file: the model's own detections, in one function of tensors."""

import pytest
import torch
from detections import assert_same_detections
from detectors import image, small_config, small_detector

from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances

from resnest_d2.export.parts import build_part, paste_masks

BGR = ("INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", "[103.53, 116.28, 123.675]")
BGR += ("MODEL.PIXEL_STD", "[57.4, 57.1, 58.4]")


@pytest.mark.parametrize("opts", [(), BGR], ids=["RGB", "BGR"])
@pytest.mark.parametrize("family", ["faster", "deformable", "mask", "cascade", "RetinaNet"])
def test_detector_gives_what_detectron2_gives(family, opts):
    model = small_detector(family, *opts)
    part = build_part(model, small_config(family, *opts), "model")
    given = image(90, 131)["image"]
    with torch.no_grad():
        outputs = dict(zip(part.output_names, part(given), strict=True))
        own = given.flip(0) if opts else given
        (expected,) = model([{"image": own, "height": 90, "width": 131}])
    expected = expected["instances"]
    assert len(expected) > 1
    assert ("masks" in outputs) == expected.has("pred_masks") == (family in ("mask", "cascade"))
    found = Instances((90, 131), pred_boxes=Boxes(outputs["boxes"]), scores=outputs["scores"])
    found.pred_classes = outputs["classes"]
    if "masks" in outputs:
        found.pred_masks = outputs["masks"]
        assert expected.pred_masks.any()
    assert_same_detections(found, expected, scores=1e-5, boxes=0.01)


def test_class_agnostic_masks_are_those_of_the_only_channel():
    opts = ("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", "True")
    model = small_detector("mask", *opts)
    part = build_part(model, small_config("mask", *opts), "model")
    given = image()
    with torch.no_grad():
        *_, masks = part(given["image"])
        expected = model([given])[0]["instances"].pred_masks
    assert (masks != expected).float().mean() < 1e-4


def test_paste_equals_detectron2s_paste():
    boxes = torch.tensor(
        [[3.2, 4.7, 40.1, 30.9], [0, 0, 64, 48], [60.5, 40.2, 64, 48], [5, 5, 5.4, 9]]
    )
    masks = torch.rand(4, 28, 28)
    ours = paste_masks(masks, boxes, 48, 64)
    theirs = paste_masks_in_image(masks, Boxes(boxes), (48, 64), threshold=-1)  # bytes, 0-255
    assert (255 * ours - theirs.float()).abs().max() <= 1  # theirs are rounded down
    assert torch.equal(ours >= 0.5, paste_masks_in_image(masks, Boxes(boxes), (48, 64)))


def test_the_model_is_left_as_it_is():
    model = small_detector("mask")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    build_part(model, small_config("mask"), "model")
    assert model.roi_heads.mask_on
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("part", ["backbone", "bottom_up"])
def test_features_are_those_of_the_networks(part):
    model = small_detector("mask")
    exported = build_part(model, small_config("mask"), part)
    given = image()
    network = model.backbone if part == "backbone" else model.backbone.bottom_up
    with torch.no_grad():
        outputs = exported(given["image"])
        expected = network(model.preprocess_image([given]).tensor)
    assert exported.output_names == list(network.output_shape()) == list(expected)
    for name, output in zip(exported.output_names, outputs, strict=True):
        torch.testing.assert_close(output, expected[name][0], atol=1e-4, rtol=1e-4)


def test_dense_outputs_hold_every_detection():
    model = small_detector("RetinaNet")
    part = build_part(model, small_config("RetinaNet"), "model", nms=False)
    given = image()
    with torch.no_grad():
        boxes, scores = part(given["image"])
        found = model([given])[0]["instances"]
    assert scores.shape == (len(boxes), 3)
    for box, score, label in zip(
        found.pred_boxes.tensor, found.scores, found.pred_classes, strict=True
    ):
        near = (scores[:, label] - score).abs() < 1e-5
        clipped = boxes[near].clamp(min=torch.zeros(4), max=torch.tensor([128, 96, 128, 96]))
        assert (clipped - box).abs().amax(dim=1).min() < 1e-3


@pytest.mark.parametrize(
    ("family", "part", "nms", "message"),
    [
        ("panoptic", "model", True, "panoptic"),
        ("keypoint", "model", True, "keypoints"),
        ("mask", "model", False, "RetinaNet"),
        ("mask", "head", True, "the part must be one of"),
    ],
)
def test_what_no_file_can_hold_is_refused_with_the_reason(family, part, nms, message):
    model = small_detector(family)
    with pytest.raises(ValueError, match=message):
        build_part(model, small_config(family), part, nms=nms)


def test_bottom_up_needs_an_fpn():
    model = small_detector("mask")
    model.backbone = model.backbone.bottom_up
    with pytest.raises(ValueError, match='"backbone"'):
        build_part(model, small_config("mask"), "bottom_up")

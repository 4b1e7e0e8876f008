"""Prediction from a checkpoint alone: the right model, the right pixels, or a refusal."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from detections import assert_same_detections
from detectors import draw_heads, save_detector
from PIL import Image, ImageOps
from pycocotools import mask as mask_util

from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.structures import Boxes, Instances, ROIMasks

from resnest_d2 import Predictor, evaluate, get_config
from resnest_d2.checkpoint import RECORD_KEY, make_record
from resnest_d2.data import build_test_loader, register_coco
from resnest_d2.evaluation import build_coco_evaluator
from resnest_d2.evaluation.coco_evaluator import encode_masks

CLASSES = ["circle", "square", "triangle", "star", "ring"]
BGR = ["INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", "[103.53, 116.28, 123.675]"]
BGR += ["MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]", "INPUT.MIN_SIZE_TEST", "96"]

TWO_SIZES = ("TEST.AUG.MIN_SIZES", "(48, 80)", "TEST.AUG.MAX_SIZE", "96")


def _save(path, opts=(), weights=None, **record):
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", ["MODEL.DEVICE", "cpu", *opts])
    cfg.INPUT.MAX_SIZE_TEST = 128
    model = build_model(cfg)
    draw_heads(model)
    torch.save(
        {
            "model": weights or model.state_dict(),
            RECORD_KEY: {**make_record(cfg, CLASSES), **record},
        },
        path,
    )
    return cfg, model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pth"
    torch.manual_seed(0)
    _save(path)
    return path


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return Predictor(checkpoint, device="cpu", score_threshold=0.0)


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((48, 64), (70, 50))]


def test_config_and_class_names_come_from_the_checkpoint(predictor):
    assert predictor.class_names == CLASSES
    assert predictor.cfg.INPUT.FORMAT == "RGB"
    assert not predictor.model.training


def test_batch_of_different_sizes_equals_single_images(predictor, images):
    for image, together in zip(images, predictor.batch(images), strict=True):
        alone = predictor(image)
        assert together.image_size == image.shape[:2] and len(alone) > 0
        assert_same_detections(together, alone, scores=1e-4, boxes=0.01)


def test_company_in_a_batch_changes_nothing(checkpoint):
    predictor = Predictor(checkpoint, device="cpu", score_threshold=0.0)
    for name, parameter in predictor.model.named_parameters():
        if name.endswith("norm.bias"):  # zero in a new network, where padding then stays zero
            torch.nn.init.uniform_(parameter, 0.5, 1.0)
    random = np.random.default_rng(0)
    sizes = ((64, 128), (128, 60), (64, 128), (62, 128))
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    for image, together in zip(images, predictor.batch(images), strict=True):
        alone = predictor(image)
        assert len(alone) > 0
        assert_same_detections(together, alone, scores=1e-4, boxes=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("tta", [False, True], ids=["once", "augmented"])
def test_optimised_predictor_finds_the_same(tta, images, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "resnest_d2.inference.optimize.has_fast_bfloat16", lambda device_type: False
    )
    _save(tmp_path / "model.pth", TWO_SIZES)
    predictor = partial(Predictor, tmp_path / "model.pth", device="cpu", score_threshold=0, tta=tta)
    optimised, plain = predictor(optimize=True), predictor()
    for actual, expected in zip(optimised.batch(images), plain.batch(images), strict=True):
        assert_same_detections(actual, expected, scores=1e-4, boxes=0.01, masks=1e-3)


@pytest.mark.parametrize("size", [(48, 64), (1, 300)])
def test_min_size_test_of_zero_resizes_nothing(size, tmp_path):
    _save(tmp_path / "model.pth", ["INPUT.MIN_SIZE_TEST", "0"])
    predictor = Predictor(tmp_path / "model.pth", device="cpu", score_threshold=0.0)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert np.array_equal(predictor.preprocess(image)["image"].numpy(), image.transpose(2, 0, 1))
    assert predictor(image).image_size == size


def test_no_image_gives_no_result(predictor):
    assert predictor.batch([]) == []


def test_file_and_array_give_the_same_input(predictor, images, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(images[0]).save(path)
    of_file, of_array = predictor.preprocess(path), predictor.preprocess(images[0])
    assert torch.equal(of_file["image"], of_array["image"])


@pytest.mark.parametrize("opts", [[], BGR], ids=["RGB", "BGR"])
def test_preprocessing_equals_evaluation(opts, images, tmp_path):
    cfg, model = _save(tmp_path / "model.pth", opts)
    predictor = Predictor(tmp_path / "model.pth", device="cpu")
    path = tmp_path / "image.png"
    Image.fromarray(images[1]).save(path)
    expected = DatasetMapper(cfg, is_train=False)({"file_name": str(path)})
    ours = predictor.preprocess(path)
    assert torch.equal(ours["image"], expected["image"])
    normalised = predictor.model.preprocess_image([ours]).tensor
    assert torch.equal(normalised, model.preprocess_image([expected]).tensor)


@pytest.mark.parametrize("opts", [[], BGR], ids=["RGB with std", "BGR with std 1"])
def test_training_evaluation_and_prediction_see_one_real_image_alike(opts, test_data, tmp_path):
    files = {file.name: file for file in (test_data / "coco_val_mini" / "images").glob("*.jpg")}
    path = str(files[min(files)])
    # training resizes at random and flips; here it may choose from the size of evaluation alone
    sizes = ["INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MAX_SIZE_TRAIN", "128"]
    sizes += ["INPUT.RANDOM_FLIP", "none", "INPUT.MIN_SIZE_TEST", "96"]
    cfg, trained = _save(tmp_path / "model.pth", [*opts, *sizes])
    assert cfg.INPUT.FORMAT == ("BGR" if opts else "RGB")
    assert (set(cfg.MODEL.PIXEL_STD) == {1.0}) == bool(opts)
    predictor = Predictor(tmp_path / "model.pth", device="cpu")
    training = DatasetMapper(cfg, is_train=True)({"file_name": path, "annotations": []})
    evaluation = DatasetMapper(cfg, is_train=False)({"file_name": path})
    prediction = predictor.preprocess(path)
    expected = _by_hand(path, cfg)
    for model in (trained.train(), trained.eval(), predictor.model):
        for item in (training, evaluation, prediction):
            assert torch.equal(item["image"], evaluation["image"])
            seen = model.preprocess_image([item]).tensor
            padded = torch.zeros_like(seen)
            padded[..., : expected.shape[1], : expected.shape[2]] = expected
            torch.testing.assert_close(seen, padded, rtol=0, atol=1e-5)


# With std 1, activations and the rounding of a batch would be 50 times as large.
@pytest.mark.parametrize(
    "opts", [[], [*BGR, "MODEL.PIXEL_STD", "[57.4, 57.1, 58.4]"]], ids=["RGB", "BGR"]
)
def test_boxes_and_masks_are_those_of_evaluation(opts, test_data, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    sources = sorted((test_data / "coco_val_mini" / "images").glob("*.jpg"))[:5]
    images = []
    for number, source in enumerate(sources):
        image = Image.open(source)
        exif = Image.Exif()
        exif[0x0112] = (1, 6, 3, 1, 8)[number]  # how the camera was held
        image = image.convert("L" if number == 3 else "RGB")
        image.save(folder / source.name, exif=exif, quality=95)
        size = ImageOps.exif_transpose(Image.open(folder / source.name)).size
        images.append({"file_name": source.name, "width": size[0], "height": size[1]})
        images[-1]["id"] = 10 * number
    categories = [{"id": 3 * number + 2, "name": name} for number, name in enumerate(CLASSES[:3])]
    dataset = {"images": images, "categories": categories, "annotations": []}
    (tmp_path / "set.json").write_text(json.dumps(dataset))
    name = register_coco(tmp_path / "set.json", folder)

    sizes = ("INPUT.MIN_SIZE_TEST", "96", "INPUT.MAX_SIZE_TEST", "160")
    checkpoint = save_detector(tmp_path / "model.pth", "mask", *opts, *sizes)
    predictor = Predictor(checkpoint, device="cpu", score_threshold=0.2)
    cfg = predictor.cfg
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    evaluator = build_coco_evaluator(cfg, name, str(tmp_path / "evaluation"))
    inference_on_dataset(model, build_test_loader(cfg, name), evaluator)
    results = json.loads((tmp_path / "evaluation" / "coco_instances_results.json").read_text())

    files = [folder / image["file_name"] for image in images]
    for found in (predictor.batch(files), [predictor(file) for file in files]):
        for image, instances in zip(images, found, strict=True):
            expected = [result for result in results if result["image_id"] == image["id"]]
            assert len(expected) > 3
            assert instances.image_size == (image["height"], image["width"])
            boxes = torch.tensor([result["bbox"] for result in expected])
            boxes[:, 2:] += boxes[:, :2]
            masks = np.stack([mask_util.decode(result["segmentation"]) for result in expected])
            evaluated = Instances(
                instances.image_size,
                pred_boxes=Boxes(boxes),
                scores=torch.tensor([result["score"] for result in expected]),
                pred_classes=torch.tensor([(r["category_id"] - 2) // 3 for r in expected]),
                pred_masks=torch.from_numpy(masks.astype(bool)),
            )
            assert_same_detections(instances, evaluated, scores=1e-5, boxes=0.01)


@pytest.mark.parametrize("family", ["faster", "mask"])
def test_test_time_augmentation_is_evaluations(family, images, tmp_path):
    opts = (*TWO_SIZES, "INPUT.MIN_SIZE_TEST", "64")
    checkpoint = save_detector(tmp_path / "model.pth", family, *opts)
    predictor = Predictor(checkpoint, device="cpu", score_threshold=0.2, tta=True)
    plain = Predictor(checkpoint, device="cpu", score_threshold=0.2)
    assert predictor.settings == {**plain.settings, "tta": True}
    augmented = GeneralizedRCNNWithTTA(plain.cfg, plain.model)
    path = tmp_path / "image.png"
    for image, found in zip(images, predictor.batch(images), strict=True):
        Image.fromarray(image).save(path)
        item = DatasetMapper(plain.cfg, is_train=False)({"file_name": str(path)})
        with torch.no_grad():
            item |= {"height": image.shape[0], "width": image.shape[1]}
            expected = augmented([item])[0]["instances"]
        assert len(expected) > 3 and found.has("pred_masks") == (family == "mask")
        assert_same_detections(found, expected, scores=1e-5, boxes=0.01)
        assert not torch.equal(found.scores, plain(image).scores)


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("family", ["mask", "cascade"])
def test_masks_that_are_not_pasted_are_the_same_masks(family, tta, images, tmp_path):
    checkpoint = save_detector(tmp_path / "model.pth", family, *TWO_SIZES)
    predictor = Predictor(checkpoint, device="cpu", score_threshold=0.2, tta=tta)
    unpasted = predictor.batch(images, paste_masks=False)
    for found, expected in zip(unpasted, predictor.batch(images), strict=True):
        assert isinstance(found.pred_masks, ROIMasks) and len(found) == len(expected) > 3
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        pasted = found.pred_masks.to_bitmasks(found.pred_boxes, *found.image_size).tensor
        assert torch.equal(pasted, expected.pred_masks)
        assert encode_masks(found)[1] == encode_masks(expected)[1]


@pytest.mark.parametrize("family", ["keypoint", "RetinaNet", "panoptic", "faster"])
def test_other_models_do_not_mind_that_masks_are_not_pasted(family, images, tmp_path):
    checkpoint = save_detector(tmp_path / "model.pth", family)
    predictor = Predictor(checkpoint, device="cpu", score_threshold=0.2)
    (found,), (expected,) = (predictor.batch(images[:1], paste_masks=p) for p in (False, True))
    assert found.get_fields().keys() == expected.get_fields().keys()
    assert found.has("pred_masks") == (family == "panoptic")
    if family == "panoptic":
        assert torch.equal(found.pred_masks, expected.pred_masks)


def test_augmentation_that_finds_nothing_is_an_empty_result(images, tmp_path):
    _save(tmp_path / "model.pth", TWO_SIZES)
    found = Predictor(tmp_path / "model.pth", device="cpu", score_threshold=1.0, tta=True)(
        images[0]
    )
    assert len(found) == 0 and found.pred_masks.shape == (0, *images[0].shape[:2])


@pytest.mark.parametrize("family", ["keypoint", "RetinaNet", "panoptic"])
def test_families_without_augmentation_refuse_it(family, tmp_path):
    checkpoint = save_detector(tmp_path / "model.pth", family)
    with pytest.raises(ValueError, match=r"no test-time augmentation for .*model\.pth: .*MODEL\."):
        Predictor(checkpoint, device="cpu", tta=True)


def _by_hand(path, cfg):
    """Channel order, size and normalisation from the definitions, without Detectron2."""
    with Image.open(path) as image:
        assert not image.getexif().get(0x0112)  # upright
        image = image.convert("RGB")
    scale = min(96 / min(image.size), 128 / max(image.size))
    image = image.resize([int(side * scale + 0.5) for side in image.size], Image.BILINEAR)
    pixels = np.asarray(image, np.float32)
    pixels = pixels[..., ::-1] if cfg.INPUT.FORMAT == "BGR" else pixels
    pixels = (pixels - np.float32(cfg.MODEL.PIXEL_MEAN)) / np.float32(cfg.MODEL.PIXEL_STD)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def test_an_image_of_any_proportions_is_detected_in(predictor):
    for height, width in ((1, 1), (1, 3000), (3000, 1)):
        image = np.full((height, width, 3), 100, np.uint8)
        assert min(predictor.preprocess(image)["image"].shape[1:]) >= 1
        assert predictor(image).image_size == (height, width)


def test_what_is_left_out_of_a_file_is_logged(predictor, tmp_path, caplog):
    frames = [Image.new("L", (30, 20), value) for value in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert predictor(tmp_path / "moving.gif").image_size == (20, 30)
    assert "moving.gif: the first of its frames" in caplog.text


def test_category_ids_are_known_where_the_data_set_is(checkpoint, tmp_path):
    assert Predictor(checkpoint, device="cpu").category_ids is None
    coco = MetadataCatalog.get("coco_2017_train")
    opts = ["DATASETS.TRAIN", "('coco_2017_train',)", "MODEL.ROI_HEADS.NUM_CLASSES", "80"]
    _save(tmp_path / "coco.pth", opts, class_names=coco.thing_classes)
    ids = Predictor(tmp_path / "coco.pth", device="cpu").category_ids
    assert len(ids) == 80 and (ids[0], ids[11], ids[79]) == (1, 13, 90)  # COCO has no 12
    _save(tmp_path / "mine.pth", opts, class_names=["person", *"abcdefg"])
    assert Predictor(tmp_path / "mine.pth", device="cpu").category_ids is None
    _save(tmp_path / "broken.pth", category_ids="1, 2")
    with pytest.raises(ValueError, match="broken.pth is damaged: its category_ids must be a list"):
        Predictor(tmp_path / "broken.pth", device="cpu")


def test_a_network_of_proposals_alone_is_refused(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "resnest_d2.model_zoo.trained.check_network", lambda *_: None
    )  # the weights fit
    stored = torch.load(checkpoint, weights_only=True)
    opts = ["MODEL.META_ARCHITECTURE", "ProposalNetwork"]
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", opts)
    stored[RECORD_KEY] = make_record(cfg, CLASSES)
    torch.save(stored, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="model.pth holds a ProposalNetwork: no detector"):
        Predictor(tmp_path / "model.pth", device="cpu")


def test_low_scores_are_left_out(checkpoint, images):
    assert len(Predictor(checkpoint, device="cpu", score_threshold=1.0)(images[0])) == 0


@pytest.mark.parametrize("threshold", [50, -0.1, float("nan")])
def test_threshold_that_is_no_score_is_refused(checkpoint, threshold):
    with pytest.raises(ValueError, match="score_threshold must be from 0 to 1, got"):
        Predictor(checkpoint, device="cpu", score_threshold=threshold)


@pytest.mark.parametrize("config", ["NO_SUCH_KEY: 1", "a: [1", "just text", "MODEL: 3"])
def test_config_of_another_version_is_refused_with_the_file(tmp_path, config):
    _save(tmp_path / "model.pth", config=config, version="9.9")
    with pytest.raises(ValueError, match=r"model\.pth.*9\.9"):
        Predictor(tmp_path / "model.pth", device="cpu")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("MODEL.ROI_HEADS.NUM_CLASSES", 10**9, "from -1000000 to 1000000, got 1000000000"),
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", -(10**9), "1000000, got -1000000000"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", 900_000, "900001"),
        ("MODEL.ROI_BOX_HEAD.NUM_FC", 900_000, "a model of more than"),
        ("MODEL.ROI_MASK_HEAD.NUM_CONV", 900_000, "a model of more than"),
        ("MODEL.FPN.OUT_CHANNELS", 900_000, "900000"),
        ("MODEL.FPN.OUT_CHANNELS", -1, "builds no model"),
        ("MODEL.RESNETS.NUM_GROUPS", 0, "builds no model"),
    ],
)
def test_a_config_that_asks_for_another_model_is_refused_before_it_is_built(
    checkpoint, tmp_path, monkeypatch, key, value, named
):
    monkeypatch.setattr(
        "resnest_d2.predict.predictor.build_model", lambda cfg: pytest.fail("was built")
    )
    stored = torch.load(checkpoint, weights_only=True)
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", [key, str(value)])
    stored[RECORD_KEY] = make_record(cfg, CLASSES)
    torch.save(stored, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=f"model.pth.*{named}"):
        Predictor(tmp_path / "model.pth", device="cpu")
    with pytest.raises(ValueError, match=f"model.pth.*{named}"):
        evaluate(tmp_path / "model.pth", val=("none.json", "none"))


def test_channel_order_that_is_not_known_is_refused(tmp_path):
    _save(tmp_path / "model.pth", ["INPUT.FORMAT", "YUV-BT.601"])
    with pytest.raises(ValueError, match="INPUT.FORMAT .*YUV-BT.601"):
        Predictor(tmp_path / "model.pth", device="cpu")


def test_class_without_a_name_has_its_number(tmp_path, images):
    _save(tmp_path / "model.pth", class_names=["circle"])
    predictor = Predictor(tmp_path / "model.pth", device="cpu")
    assert predictor.class_names == ["circle", "class 1", "class 2", "class 3", "class 4"]
    instances = Instances(
        (48, 64),
        pred_boxes=Boxes(torch.tensor([[2.0, 2, 20, 20]])),
        scores=torch.ones(1),
        pred_classes=torch.tensor([4]),
    )
    assert (predictor.draw(images[0], instances) != images[0]).any()


def test_checkpoint_without_heads_is_refused(checkpoint, tmp_path):
    weights = torch.load(checkpoint, weights_only=True)["model"]
    backbone = {k: v for k, v in weights.items() if k.startswith("backbone.")}
    _save(tmp_path / "backbone.pth", weights=backbone)
    with pytest.raises(ValueError, match="backbone.pth has .* of the .*proposal_generator"):
        Predictor(tmp_path / "backbone.pth", device="cpu")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"uint8 of shape \(8, 8\)"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        ([[0]], "list"),
    ],
)
def test_what_is_no_image_is_refused(predictor, image, message):
    with pytest.raises(ValueError, match=message):
        predictor(image)
    with pytest.raises(ValueError, match=message):
        predictor.draw(image, Instances((8, 8)))


def test_picture_is_drawn_where_the_instances_are(predictor, images):
    instances = predictor(images[0])[:1]
    plain = np.full_like(images[0], (200, 128, 60))
    picture = predictor.draw(plain, instances)
    assert picture.shape == plain.shape and picture.dtype == np.uint8
    assert (picture != plain).any()
    assert np.abs(predictor.draw(plain, instances[:0]).astype(int) - plain).max() <= 2

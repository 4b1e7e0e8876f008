"""Any checkpoint of a detector is taken: of this package, published, or of stock Detectron2."""

import json
from unittest import mock

import numpy as np
import pytest
import torch
from detectors import save_detector, small_config, small_detector
from PIL import Image

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

import resnest_d2
from resnest_d2 import Predictor
from resnest_d2.data import sample_set
from resnest_d2.model_zoo.trained import (
    find_trained_model,
    known_category_ids,
    recorded_config,
)
from resnest_d2_command import main

SIZE = ("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96")
CLASSES = ("MODEL.ROI_HEADS.NUM_CLASSES", "80", "MODEL.RETINANET.NUM_CLASSES", "80")
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


class _TrainerState:
    """What stock Detectron2's trainer writes beside the weights, numbers of numpy included."""

    def state_dict(self):
        hooks = {"BestCheckpointer": {"best_metric": np.float64(41.5)}}
        return {"iteration": np.int64(9), "hooks": hooks, "_trainer": {"optimizer": {"state": {}}}}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    return sample_set(folder, image_size=64, train_images=2, val_images=2)


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """``model_final.pth`` and ``config.yaml`` as stock Detectron2's trainer writes them."""
    folder = tmp_path_factory.mktemp("stock")
    torch.manual_seed(0)
    five = ("MODEL.ROI_HEADS.NUM_CLASSES", "5", "DATASETS.TRAIN", "('of_a_notebook',)")
    model = small_detector("mask", *SIZE, *five)
    checkpointer = DetectionCheckpointer(model, str(folder), trainer=_TrainerState())
    checkpointer.save("model_final", iteration=np.int64(9))
    (folder / "config.yaml").write_text(small_config("mask", *SIZE, *five).dump())
    return folder


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A stand-in for the published weights of a recipe, and for the recipe itself."""
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(tmp_path))
    cfg = small_config("mask", *SIZE, *CLASSES)
    monkeypatch.setattr("resnest_d2.model_zoo.trained.get_config", lambda name: cfg.clone())
    state = small_detector("mask", *CLASSES).state_dict()
    torch.save({"model": state}, tmp_path / "mask_rcnn_resnest50_fpn.pth")
    return "resnest://mask_rcnn_resnest50_fpn"


def test_published_detector_predicts_coco_with_its_recipe(published):
    predictor = Predictor(published, device="cpu", score_threshold=0)
    coco = MetadataCatalog.get("coco_2017_train")
    assert predictor.class_names == coco.thing_classes
    assert predictor.category_ids == sorted(coco.thing_dataset_id_to_contiguous_id)
    assert predictor.checkpoint.name == "mask_rcnn_resnest50_fpn.pth"
    assert len(predictor(IMAGE))


@pytest.mark.parametrize("config", [None, "mask_rcnn_resnest50_fpn"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnest50", "holds a backbone's weights"),
        ("resnest101_detectron", "holds a backbone's weights"),
        ("retinanet_resnest50_fpn", "no trained weights were published"),
    ],
)
def test_published_weights_of_no_detector_are_refused_before_a_download(
    name, reason, config, monkeypatch
):
    monkeypatch.setattr("resnest_d2.model_zoo.handler.fetch", lambda name: pytest.fail("download"))
    with pytest.raises(ValueError, match=f"{reason}.*Published detectors: .*mask_rcnn_resnest50"):
        Predictor(f"resnest://{name}", config=config)


def test_file_of_the_folder_of_weights_goes_by_its_own_record(tmp_path, monkeypatch):
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(tmp_path))
    save_detector(tmp_path / "mine.pth", "mask", *SIZE)
    assert Predictor("resnest://mine", device="cpu").class_names == ["ant", "bee", "cow"]


def test_own_weights_of_a_recipe_without_published_ones_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(tmp_path))
    (tmp_path / "retinanet_resnest50_fpn.pth").touch()
    trained = find_trained_model("resnest://retinanet_resnest50_fpn")
    assert trained.is_published and trained.cfg.MODEL.META_ARCHITECTURE == "RetinaNet"


def test_old_keys_of_a_recorded_config_have_their_effect(tmp_path):
    record = {"config": "RESNEST: {OPTIMIZER: AdamW, EMA: {DECAY: 0.9}}"}
    with pytest.warns(DeprecationWarning):
        cfg = recorded_config(record, tmp_path / "model.pth")
    assert cfg.SOLVER.OPTIMIZER == "AdamW"
    assert (cfg.MODEL_EMA.ENABLED, cfg.MODEL_EMA.DECAY) == (True, 0.9)


def test_checkpoint_of_stock_detectron2_predicts_with_its_config(stock):
    file = Predictor(
        stock / "model_final.pth",
        config=stock / "config.yaml",
        device="cpu",
        score_threshold=0,
    )
    assert file.class_names == [f"class {i}" for i in range(5)]
    found = file(IMAGE)
    assert len(found)
    cfg = small_config("mask", *SIZE, "MODEL.ROI_HEADS.NUM_CLASSES", "5")
    cfg.pop("RESNEST")  # a config of Python may lack keys of this package
    folder = Predictor(stock, config=cfg, device="cpu", score_threshold=0)
    assert torch.equal(folder(IMAGE).scores, found.scores)
    assert "RESNEST" not in cfg  # the caller's stays


def test_class_names_are_those_of_the_registered_data(stock, shapes):
    json_file, images = shapes["train"]
    register_coco_instances("of_a_notebook", {}, json_file, images)
    try:
        predictor = Predictor(stock, config=stock / "config.yaml", device="cpu")
    finally:
        for catalog in (DatasetCatalog, MetadataCatalog):
            catalog.remove("of_a_notebook")
    assert predictor.class_names == ["circle", "square", "triangle", "star", "ring"]
    assert predictor.category_ids == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("names", "numbers", "ids"),
    [
        (["ant", "bee"], {3: 1, 7: 0}, [7, 3]),  # by class number
        (["bee", "ant"], {3: 1, 7: 0}, []),  # other classes
        (["ant", "bee"], {3: 0, 5: 0, 7: 1}, []),  # a class of two ids
    ],
)
def test_category_ids_are_known_where_each_class_has_one(names, numbers, ids):
    metadata = {"thing_classes": ["ant", "bee"], "thing_dataset_id_to_contiguous_id": numbers}
    MetadataCatalog.get("set_of_numbers").set(**metadata)
    try:
        assert known_category_ids(("set_of_numbers",), names) == ids
    finally:
        MetadataCatalog.remove("set_of_numbers")


def test_names_of_more_classes_than_the_model_has_are_not_its_names(stock):
    opts = ("MODEL.ROI_HEADS.NUM_CLASSES", "5", "DATASETS.TRAIN", "('coco_2017_train',)")
    predictor = Predictor(stock, config=small_config("mask", *SIZE, *opts), device="cpu")
    assert predictor.class_names[0] == "class 0"
    retina = ("MODEL.RETINANET.NUM_CLASSES", "5", "MODEL.ROI_HEADS.NUM_CLASSES", "80")
    cfg = small_config("RetinaNet", *retina, "DATASETS.TRAIN", "('coco_2017_train',)")
    assert find_trained_model(stock, cfg).class_names == []


def test_checkpoint_without_a_config_names_the_way_out(stock):
    with pytest.raises(ValueError, match=r"does not say which model.*.--config-file FILE, or conf"):
        Predictor(stock)


def test_every_command_takes_a_checkpoint_of_stock_detectron2(stock, shapes, tmp_path, capsys):
    given = ["--config-file", str(stock / "config.yaml")]
    image = tmp_path / "image.png"
    Image.fromarray(IMAGE).save(image)
    checkpoint = ["--checkpoint", str(stock), *given, "--device", "cpu", "--score-threshold", "0"]
    out = ["--out", str(tmp_path / "predicted"), "--format", "none"]
    assert main(["predict", str(image), *checkpoint, *out]) == 0
    opts = ["--json", "OUTPUT_DIR", str(tmp_path), "MODEL.DEVICE", "cpu"]
    data = ["--val-json", shapes["val"][0], "--val-images", shapes["val"][1]]
    evaluate = ["evaluate", "--checkpoint", str(stock / "model_final.pth"), *given, *data, *opts]
    capsys.readouterr()
    assert main(evaluate) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"bbox", "segm"}
    assert main([word for word in evaluate if word not in given]) == 2
    assert "--config-file FILE" in capsys.readouterr().err
    part = ["--format", "torchscript", "--part", "bottom_up", "--no-verify"]
    assert main(["export", str(stock), str(tmp_path / "part.pt"), *given, *part]) == 0
    refusing = mock.Mock(side_effect=ValueError("seen"))
    with mock.patch("resnest_d2.predict.predictor.Predictor", refusing):
        assert main(["explain", str(image), *checkpoint]) == 2
    assert refusing.call_args.kwargs["config"] == given[1]


def test_evaluation_goes_by_the_checkpoint_alone(shapes, tmp_path, capsys):
    names = ["circle", "square", "triangle", "star", "ring"]
    opts = (*SIZE, "MODEL.ROI_HEADS.NUM_CLASSES", "5")
    save_detector(tmp_path / "model_final.pth", "faster", *opts)
    stored = torch.load(tmp_path / "model_final.pth", weights_only=True)
    data = ["--val-json", shapes["val"][0], "--val-images", shapes["val"][1]]
    for classes, code in ((names, 0), ([*names[1:], names[0]], 2)):
        stored["resnest_d2"]["class_names"] = classes
        torch.save(stored, tmp_path / "model_final.pth")
        assert main(["evaluate", "--checkpoint", str(tmp_path), *data, "--quiet"]) == code
    assert (tmp_path / "inference" / "coco_instances_results.json").is_file()
    message = capsys.readouterr().err
    assert "trained on the classes square" in message and shapes["val"][0] in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config-file is missing"),
        (["--checkpoint", "a.pth", "--resume"], "--checkpoint a.pth and --resume are two sources"),
        (["--checkpoint", "a.pth", "MODEL.WEIGHTS", "b.pth"], "and MODEL.WEIGHTS are two sources"),
        (["--checkpoint", "none.pth"], "there is no checkpoint none.pth"),
        (["--checkpoint", "resnest://resnest50"], "a backbone's weights"),
    ],
)
def test_evaluate_refuses_what_is_no_one_checkpoint(arguments, message, capsys):
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_published_detector_is_evaluated_from_python(published, shapes, tmp_path):
    with pytest.raises(ValueError, match="was trained on the classes person, .* has circle"):
        resnest_d2.evaluate(published, val=shapes["val"], output_dir=tmp_path / "out")

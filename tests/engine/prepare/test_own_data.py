"""A run on own data takes what the data says, refuses what contradicts it, and says so."""

import dataclasses
import json
import logging
from contextlib import nullcontext

import pytest
from runs import TINY, tiny_request

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from resnest_d2.checkpoint import RECORD_KEY
from resnest_d2.config import get_config, get_config_file, read_config
from resnest_d2.data import sample_set, summarise_training_data
from resnest_d2.engine import RunRequest, prepare, run
from resnest_d2.engine.prepare.classes import (
    check_class_order,
    check_same_classes,
    use_classes,
)
from resnest_d2.engine.prepare.given_values import GivenValues
from resnest_d2.engine.prepare.own_data import use_own_data
from resnest_d2.evaluation.coco_evaluator import RESULTS
from resnest_d2.model_zoo.trained import class_names_of


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    return sample_set(folder, image_size=64, train_images=4, val_images=2)


@pytest.fixture
def change(shapes, tmp_path):
    """A copy of the sample set's files, each changed by a function of its content."""

    def change(function, *parts):
        changed = dict(shapes)
        for part in parts or shapes:
            json_file, image_root = shapes[part]
            with open(json_file) as file:
                content = json.load(file)
            function(content)
            (tmp_path / f"{part}.json").write_text(json.dumps(content))
            changed[part] = (str(tmp_path / f"{part}.json"), image_root)
        return changed

    return change


def _all_crowds(content):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


def test_a_set_of_crowds_alone_is_refused_with_the_way_out(change, tmp_path):
    with pytest.raises(ValueError, match=r"all \d+ annotations are crowds .*--iscrowd 0"):
        prepare(tiny_request(change(_all_crowds, "train"), tmp_path / "run"))


def test_crowds_are_counted_and_said_to_be_left_alone(change, tmp_path, caplog):
    def some_crowds(content):
        for annotation in content["annotations"][1:]:
            annotation["iscrowd"] = 1

    caplog.set_level(logging.INFO)
    cfg = prepare(tiny_request(change(some_crowds, "train"), tmp_path / "run")).cfg
    count = len(
        json.load(open(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).json_file))["annotations"]
    )
    assert f"crowds {count - 1}, annotations {count}" in caplog.text
    assert "neither trained nor scored" in caplog.text
    assert summarise_training_data(cfg).crowds == count - 1
    prepare(tiny_request(change(_all_crowds, "val"), tmp_path / "run"))
    assert "AP will be NaN" in caplog.text


def _register(shapes, name):
    if name not in DatasetCatalog:
        register_coco_instances(name, {}, *shapes["train"])
    return {"train": (), "val": ()}, ("DATASETS.TRAIN", (name,), "DATASETS.TEST", (name,))


@pytest.mark.parametrize("kind", ["files", "registered", "RetinaNet"])
@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("5", ""),
        ("4", r"NUM_CLASSES must be at least 5, the number of classes of .*train\.json, got 4"),
        ("80", r"NUM_CLASSES must be 5, .*train\.json, got 80: .*Leave the key out"),
    ],
)
def test_a_given_number_of_classes_is_refused_where_it_is_not_the_datas(
    number, message, kind, shapes, tmp_path
):
    kwargs, opts = _register(shapes, "own_data_stated") if kind == "registered" else ({}, ())
    part = "RETINANET" if kind == "RetinaNet" else "ROI_HEADS"
    opts += (f"MODEL.{part}.NUM_CLASSES", number)
    opts += ("MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", "0")
    request = tiny_request(shapes, tmp_path, *opts, **kwargs)
    if kind == "RetinaNet":
        request = dataclasses.replace(request, config="retinanet_resnest50_fpn")
    if not message:
        assert prepare(request).cfg.MODEL[part].NUM_CLASSES == 5
        return
    with pytest.raises(ValueError, match=f"MODEL.{part}.{message}"):
        prepare(request)


@pytest.mark.parametrize("kind", ["files", "registered"])
def test_the_number_of_classes_is_the_datas_unless_it_is_stated(kind, shapes, tmp_path, caplog):
    kwargs, opts = _register(shapes, "own_data_unstated") if kind == "registered" else ({}, ())
    config = tmp_path / "mine.yaml"
    base = get_config_file("sample_mask_rcnn_resnest14_fpn")
    config.write_text(f"_BASE_: {base}\nMODEL: {{ROI_HEADS: {{NUM_CLASSES: 7}}}}\n")
    caplog.set_level(logging.INFO)
    request = tiny_request(shapes, tmp_path / "run", *opts, **kwargs)
    cfg = prepare(dataclasses.replace(request, config=str(config))).cfg
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.RETINANET.NUM_CLASSES == 5
    assert "MODEL.ROI_HEADS.NUM_CLASSES is now 5, the number of classes of" in caplog.text


def test_a_config_keeps_its_number_of_classes_for_its_own_data_sets(shapes, tmp_path):
    kwargs, names = _register(shapes, "own_data_of_a_config")
    request = tiny_request(shapes, tmp_path, **kwargs)
    for number in (4, 5, 8):
        cfg = get_config(request.config, names)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = number
        mine = dataclasses.replace(request, config=cfg)
        if number < 5:
            with pytest.raises(ValueError, match="must be at least 5, .*got 4"):
                prepare(mine)
        else:
            assert prepare(mine).cfg.MODEL.ROI_HEADS.NUM_CLASSES == number


def test_an_evaluation_takes_no_number_of_classes_from_registered_data(shapes):
    _register(shapes, "shapes_registered_to_evaluate")
    data = ("shapes_registered_to_evaluate",)
    opts = ("DATASETS.TRAIN", data, "DATASETS.TEST", data)
    for eval_only, classes in ((True, 80), (False, 5)):
        cfg, layers = read_config("mask_rcnn_resnest50_fpn", opts)
        request = RunRequest("mask_rcnn_resnest50_fpn", opts, eval_only=eval_only)
        use_classes(cfg, request, GivenValues(layers))
        assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == classes


def test_two_classes_of_one_name_keep_their_numbers(monkeypatch):
    """A renamed class beside them is no moved one."""

    def found(name, cfg):
        return ["a", "a", "c"]

    monkeypatch.setitem(check_class_order.__globals__, "class_names_of", found)
    for before, refused in ((["a", "a", "b"], False), (["c", "a", "a"], True)):
        record = {RECORD_KEY: {"class_names": before}}
        with pytest.raises(ValueError, match="same number") if refused else nullcontext():
            check_class_order(None, ["data"], "model.pth", record)


def test_the_same_classes_in_another_order_are_refused(shapes):
    _register(shapes, "shapes_registered_in_order")
    data = ("DATASETS.TEST", ("shapes_registered_in_order",))
    cfg = get_config("mask_rcnn_resnest50_fpn", data)
    names = class_names_of("shapes_registered_in_order", cfg)
    check_same_classes(cfg, "model.pth", names)
    with pytest.raises(ValueError, match="must be the same, in the order of their ids"):
        check_same_classes(cfg, "model.pth", names[::-1])


@pytest.mark.parametrize("part", ["train", "val"])
def test_files_without_masks_are_refused_where_masks_are_learned_or_scored(part, change, tmp_path):
    def no_masks(content):
        for annotation in content["annotations"]:
            del annotation["segmentation"]

    with pytest.raises(ValueError, match=f"{part}.json has no 'segmentation', and MODEL.MASK_ON"):
        prepare(tiny_request(change(no_masks, part), tmp_path / "run"))


def test_a_test_set_without_annotations_is_predicted_without_metrics(change, tmp_path):
    data = change(lambda content: content.pop("annotations"), "val")
    assert run(tiny_request(data, tmp_path)) == {}  # after a training, too
    weights = ("MODEL.WEIGHTS", str(tmp_path / "model_final.pth"))
    low = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", "3")
    request = tiny_request(data, tmp_path, *weights, *low, train=(), eval_only=True)
    assert run(request) == {}
    results = json.loads((tmp_path / "inference" / RESULTS).read_text())
    assert {result["image_id"] for result in results} == {1, 2}
    with pytest.raises(ValueError, match="no annotation to train on"):
        prepare(tiny_request({"train": data["val"], "val": data["val"]}, tmp_path / "other"))


def test_a_best_checkpoint_needs_objects_to_score(change, tmp_path):
    data = change(lambda content: content.pop("annotations"), "val")
    with pytest.raises(ValueError, match="BEST.METRIC is bbox/AP, and .*val.json has no object"):
        prepare(tiny_request(data, tmp_path, "RESNEST.BEST.METRIC", "bbox/AP"))


def test_classes_of_one_name_have_a_metric_each(change, tmp_path):
    def same_names(content):
        content["categories"][1]["name"] = content["categories"][0]["name"]

    data = change(same_names)
    name, ids = "circle", (1, 2)
    metrics = run(tiny_request(data, tmp_path))["bbox"]
    assert {key for key in metrics if key.startswith(f"AP-{name}")} == {
        f"AP-{name} (id {number})" for number in ids
    }


# ---- Keypoints ----


def _keypoints(names):
    def add(content):
        for category in content["categories"]:
            category["keypoints"] = names
        for annotation in content["annotations"]:
            x, y, _, _ = annotation["bbox"]
            annotation["keypoints"] = [x + 1, y + 1, 2] * len(names)

    return add


def _keypoint_cfg(data, folder, *opts, **kwargs):
    opts = (*TINY, "OUTPUT_DIR", str(folder), "MODEL.WEIGHTS", "", *opts)
    opts += ("MODEL.BACKBONE.FREEZE_AT", "0", "TEST.KEYPOINT_OKS_SIGMAS", "(0.1, 0.1)")
    request = RunRequest("keypoint_rcnn_resnest50_fpn", opts, train=(data["train"],), **kwargs)
    return prepare(request).cfg


@pytest.mark.parametrize("names", [["L_eye", "R_eye"], ["Left eye", "Right eye"]])
def test_sides_in_names_are_exchanged_by_a_flip(change, tmp_path, names):
    cfg = _keypoint_cfg(change(_keypoints(names)), tmp_path)
    assert cfg.INPUT.RANDOM_FLIP == "horizontal"
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    assert metadata.keypoint_flip_map == [tuple(names)]
    assert metadata.keypoint_names == names


@pytest.mark.parametrize(
    ("names", "reason"),
    [(["head", "tail"], "no left"), (["L_eye", "nose"], "no other side of L_e")],
)
def test_names_without_sides_are_not_flipped_unless_told(change, tmp_path, caplog, names, reason):
    data = change(_keypoints(names))
    cfg = _keypoint_cfg(data, tmp_path)
    assert cfg.INPUT.RANDOM_FLIP == "none"
    assert reason in caplog.text and "RESNEST.KEYPOINT_FLIP_PAIRS" in caplog.text
    cfg = _keypoint_cfg(data, tmp_path, "INPUT.RANDOM_FLIP", "horizontal")
    assert cfg.INPUT.RANDOM_FLIP == "horizontal"
    pairs = ("RESNEST.KEYPOINT_FLIP_PAIRS", str((tuple(names),)))
    cfg = _keypoint_cfg(data, tmp_path, *pairs)
    assert cfg.INPUT.RANDOM_FLIP == "horizontal"
    assert MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).keypoint_flip_map == [tuple(names)]
    with pytest.raises(ValueError, match="KEYPOINT_FLIP_PAIRS must be pairs .*head|L_eye"):
        _keypoint_cfg(data, tmp_path, "RESNEST.KEYPOINT_FLIP_PAIRS", "(('a', 'b'),)")


def test_validation_data_turns_no_flips_off(change, tmp_path):
    data = change(_keypoints(["head", "tail"]))
    opts = (*TINY, "OUTPUT_DIR", str(tmp_path))
    request = RunRequest("keypoint_rcnn_resnest50_fpn", opts, val=(data["val"],))
    cfg, layers = read_config(request.config, opts)
    use_own_data(cfg, request, GivenValues(layers))
    assert cfg.INPUT.RANDOM_FLIP == "horizontal"


def test_given_pairs_leave_no_side_alone(change, tmp_path, caplog):
    data = change(_keypoints(["L_eye", "R_eye", "L_ear", "R_ear"]))
    sigmas = ("TEST.KEYPOINT_OKS_SIGMAS", "(0.1, 0.1, 0.1, 0.1)")
    pairs = ("RESNEST.KEYPOINT_FLIP_PAIRS", "(('L_eye', 'R_eye'),)")
    assert _keypoint_cfg(data, tmp_path, *sigmas, *pairs).INPUT.RANDOM_FLIP == "none"
    assert "no other side of L_ear, R_ear" in caplog.text


def test_a_given_number_of_keypoints_is_refused_where_it_is_not_the_datas(change, tmp_path):
    number = ("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "17")
    with pytest.raises(ValueError, match="NUM_KEYPOINTS is set to 17.*2 keypoints"):
        _keypoint_cfg(change(_keypoints(["L_eye", "R_eye"])), tmp_path, *number)


def test_pairs_are_given_to_train(change, tmp_path, monkeypatch):
    import resnest_d2.engine

    seen = []
    monkeypatch.setattr(resnest_d2.engine, "run", lambda request: seen.append(prepare(request).cfg))
    monkeypatch.setattr("resnest_d2.api._floats", lambda metrics: {})
    monkeypatch.setattr("resnest_d2.api.find_checkpoint", lambda folder, best: folder)
    resnest_d2.train(
        "keypoint_rcnn_resnest50_fpn",
        train=change(_keypoints(["head", "tail"]))["train"],
        output_dir=tmp_path / "run",
        opts=[*TINY, "MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", 0],
        keypoint_flip_pairs=[("head", "tail")],
    )
    metadata = MetadataCatalog.get(seen[0].DATASETS.TRAIN[0])
    assert metadata.keypoint_flip_map == [("head", "tail")]


def test_keypoints_without_names_are_numbered_and_not_flipped(change, tmp_path, caplog):
    def add(content):
        _keypoints(["a", "b"])(content)
        for category in content["categories"]:
            del category["keypoints"]

    cfg = _keypoint_cfg(change(add), tmp_path)
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 2 and cfg.INPUT.RANDOM_FLIP == "none"
    assert MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).keypoint_names == ["0", "1"]


def test_the_old_name_of_refuse_still_works(change, tmp_path):
    data = change(lambda content: content["annotations"][0].update(bbox=[0, 0, 0, 0]), "train")
    with pytest.warns(DeprecationWarning, match="refuse"):
        with pytest.raises(ValueError, match="--on-bad-data repair mends"):
            prepare(tiny_request(data, tmp_path, on_bad_data="error"))
    with pytest.raises(ValueError, match="on_bad_data must be one of"):
        prepare(tiny_request(data, tmp_path, on_bad_data="ignore"))

"""The catalog: equal to what was published, true to its recipes, found by every name."""

import re
import shlex

import pytest
import torch

from detectron2.modeling import build_model

from resnest_d2 import config
from resnest_d2.benchmark import count_params
from resnest_d2.checkpoint.statistics import InputStatistics
from resnest_d2.model_zoo import (
    CLASSIFIERS,
    MEASURED,
    MODELS,
    TASKS,
    WEIGHTS,
    find_model,
    get,
    get_config,
    list_models,
)
from resnest_d2.modeling.resnest import VARIANTS
from resnest_d2_command.parsers import build_parser

PUBLISHED = [model for model in MODELS.values() if model.published]
OTHER_TASKS = ("semantic", "classification")  # than detection
# A model small enough to be built, saved and loaded in a moment.
SMALL = "MODEL.RESNETS.DEPTH 14 MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16"
SMALL = [*SMALL.split(), "MODEL.ROI_BOX_HEAD.CONV_DIM", 16, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16]


def leaves(node, prefix: str = "") -> dict:
    flat = {}
    for key, value in node.items():
        flat.update(leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {})
        if not isinstance(value, dict):
            flat[f"{prefix}{key}"] = value
    return flat


# ---- records and recipes ----


def test_every_recipe_but_those_for_trying_out_is_a_model():
    tries = {name for name in config.list_configs() if name.startswith(("sample_", "memorise_"))}
    assert set(MODELS) == set(config.list_configs()) - tries


@pytest.mark.parametrize("name", MODELS)
def test_record_agrees_with_its_recipe(name):
    model, cfg = MODELS[name], get_config(name)
    assert model.name == name
    assert cfg.MODEL.WEIGHTS == model.initial_weights
    assert InputStatistics.from_config(cfg) == model.statistics
    kind = "resnest" if cfg.MODEL.BACKBONE.NAME.startswith("build_resnest") else "resnet"
    if cfg.MODEL.RESNETS.RADIX == 0:
        kind = "resnet"
    dcn = "_dcn" if any(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE) else ""
    assert model.backbone == f"{kind}{cfg.MODEL.RESNETS.DEPTH}{dcn}"
    assert model.own_data == (not cfg.DATASETS.TRAIN)
    if cfg.MODEL.META_ARCHITECTURE == "PanopticFPN":
        task = "panoptic"
    elif cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        task = "semantic"
    elif cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        task = "classification"
    elif cfg.MODEL.KEYPOINT_ON:
        task = "keypoints"
    else:
        task = "instance" if cfg.MODEL.MASK_ON else "detection"
    assert model.task == task
    assert ("Cascade" in model.method) == (
        cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads" and task != "panoptic"
    )


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_known(name):
    model = MODELS[name]
    if model.weights:
        assert WEIGHTS[model.weights].statistics == model.statistics
    if model.initial_weights.startswith("resnest://"):
        initial = WEIGHTS[model.initial_weights.removeprefix("resnest://")]
        assert initial.statistics == model.statistics


def test_trained_weights_and_published_results_come_together():
    detectors = {model.name for model in MODELS.values() if model.task not in OTHER_TASKS}
    published = {model.name for model in PUBLISHED}
    assert published & detectors == {name for name in detectors if MODELS[name].weights}
    assert {model.name for model in MODELS.values() if model.weights} <= published
    assert all(model.published.source for model in PUBLISHED)


@pytest.mark.parametrize("model", [m for m in MODELS.values() if m.baseline], ids=lambda m: m.name)
def test_a_baseline_is_the_same_recipe_but_for_the_backbone(model):
    baseline = MODELS[model.baseline]
    assert baseline.backbone == model.backbone.replace("resnest", "resnet")
    recipe, other = leaves(get_config(model.name)), leaves(get_config(baseline.name))
    network = {"MODEL.BACKBONE.NAME"}
    if model.task == "semantic":
        network = {f"MODEL.RESNETS.{key}" for key in ("RADIX", "DEEP_STEM", "AVD", "AVG_DOWN")}
    assert {key for key in recipe if recipe[key] != other[key]} == network | {
        *("MODEL.WEIGHTS", "MODEL.RESNETS.STRIDE_IN_1X1"),
        *("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT"),
    }


# ---- published figures ----


def test_published_figures_are_the_known_ones(facts):
    rows = facts("results")["original_coco"]
    assert len(rows) == len([model for model in PUBLISHED if model.task not in OTHER_TASKS])
    for row in rows:
        published = find_model(row["config"]).published
        figures = (published.box_ap, published.mask_ap, published.pq)
        assert figures == (row["box_ap"], row["mask_ap"], row["pq"]), row["config"]


def test_published_miou_is_the_known_one(facts):
    known = facts("segmentation")["published"]
    rows = [
        model
        for model in PUBLISHED
        if model.backbone.startswith("resnest") and model.published.miou
    ]
    assert len(rows) == len(known)
    for row in known:
        head, backbone, data = row["name"].split("_")
        method = {"deeplab": "deeplabv3", "fcn": "fcn"}[head]
        model = find_model(f"{method}_{backbone}_{ {'ade': 'ade20k'}.get(data, data) }")
        figures = (model.published.miou, model.published.pixel_accuracy)
        assert figures == (row["mIoU"], row["pixAcc"]), row["name"]
        assert model.expected_results == [["sem_seg", "mIoU", row["mIoU"], 0.2]]
    baseline = find_model("deeplabv3_resnest50_ade20k").baseline
    assert find_model(baseline).published.miou == 42.1
    assert find_model("deeplabv3_resnest50_ade20k").gains == {"miou": 3.02}


def test_gains_are_differences_of_rows(facts):
    rows = facts("results")["gains_computed_from_README_rows"]
    expected = {(row["method"], row["depth"]): (row["box_gain"], row["mask_gain"]) for row in rows}
    found = {
        (model.method, model.backbone.removeprefix("resnest")): (
            model.gains["box_ap"],
            model.gains.get("mask_ap"),
        )
        for model in MODELS.values()
        if "box_ap" in model.gains
    }
    assert found == expected


def test_accuracy_of_classifiers_is_the_known_one(facts):
    known = facts("results")["imagenet"]
    expected = {}
    for row in known["official_README"]:
        expected[row["model"].replace("ResNeSt-", "resnest")] = (row["crop"], row["torch_top1"])
    for row in known["ablation_md"]:
        expected[f"resnest50_fast_{row['setting']}"] = (224, row["torch_top1"])
        item = CLASSIFIERS[f"resnest50_fast_{row['setting']}"]
        assert (item.quoted_params, item.quoted_multiply_adds) == (row["params_M"], row["gflops"])
        setting = f"{item.radix}s{item.cardinality}x{item.width}d"
        assert setting == row["setting"]
    for row in known["timm_results"]:
        depth = re.match(r"resnest(14|26)d", row["model"])
        if depth:
            expected[f"resnest{depth[1]}"] = (row["img_size"], row["top1"])
    assert {name: (item.crop, item.top1) for name, item in CLASSIFIERS.items()} == expected
    assert set(CLASSIFIERS) == set(VARIANTS)


# ---- measured figures ----


def test_everything_is_measured_and_says_how():
    assert MEASURED["counts"]["command"] and MEASURED["counts"]["environment"]["torch"]
    for model in MODELS.values():
        assert model.measured.params and model.measured.multiply_adds, model.name
        assert MEASURED["counts"]["command"] in model.measured.commands
    for item in CLASSIFIERS.values():
        assert item.measured(224) and item.measured(item.crop), item.name
    assert CLASSIFIERS["resnest50"].measured(225) is None


def test_measured_costs_of_classifiers_are_those_of_the_official_models(facts):
    for name, known in facts("backbones")["models"].items():
        item = CLASSIFIERS[name]
        assert item.measured(224).params == known["params_with_1000_fc"]
        assert item.measured(224).multiply_adds == known["conv_linear_macs_224"]
        at_crop = known.get(f"conv_plus_linear_macs_{item.crop}", known["conv_linear_macs_224"])
        assert item.measured(item.crop).multiply_adds == at_crop


def test_measured_parameters_of_detectors_are_those_of_the_original_plugins(facts):
    for file, known in facts("results")["checkpoint_model_sizes_on_HEAD"].items():
        assert find_model(file).measured.params == known["total_params"], file


@pytest.mark.parametrize(
    "name",
    [
        *("mask_rcnn_resnet50_fpn", "finetune_mask_rcnn_resnest50_fpn", "retinanet_resnest50_fpn"),
        "deeplabv3_resnest269_pcontext",
    ],
)
def test_parameters_on_record_are_those_of_the_model(name):
    with torch.device("meta"):
        network = build_model(get_config(name, ["MODEL.DEVICE", "meta"]))
    assert MODELS[name].measured.params == count_params(network)


# ---- finding and listing ----


def test_a_model_is_found_by_its_name_and_the_originals(facts):
    for row in facts("results")["original_coco"]:
        model = find_model(row["config"])
        stem = row["config"].rpartition("/")[2]
        names = (model.name, f"{model.name}.yaml", stem, stem.removesuffix(".yaml"))
        assert all(find_model(name) is model for name in names)
        assert get_config(stem) == config.get_config(model.recipe)


def test_an_unknown_name_gets_the_nearest():
    for lookup in (find_model, get_config, get):
        with pytest.raises(KeyError, match="'mask_rcnn_resnest51_fpn'.*mask_rcnn_resnest50_fpn"):
            lookup("mask_rcnn_resnest51_fpn")


def test_lists_are_filtered_by_task_backbone_and_published_ap():
    assert list_models() == list(MODELS.values())
    assert {model.task for model in list_models()} == set(TASKS)
    for task in TASKS:
        assert {model.task for model in list_models(task)} == {task}
    backbones = {model.backbone for model in list_models(backbone="resnest50")}
    assert backbones == {"resnest50"}
    fit = list_models("instance", "resnest101", 46)
    assert [model.name for model in fit] == ["cascade_mask_rcnn_resnest101_fpn"]
    above = list_models(min_ap=47.5)
    assert above == [model for model in PUBLISHED if (model.published.box_ap or 0) >= 47.5]
    assert any(model.published.box_ap == 47.5 for model in above)


@pytest.mark.parametrize("filters", [{"task": "boxes"}, {"backbone": "resnest51"}])
def test_a_filter_that_nothing_can_fit_is_refused_with_the_choices(filters):
    (key,) = filters
    with pytest.raises(ValueError, match=f"{key} must be one of .*, got"):
        list_models(**filters)


# ---- commands ----


@pytest.mark.parametrize("name", MODELS)
def test_commands_are_ones_that_the_command_line_takes(name):
    model = MODELS[name]
    train = build_parser().parse_args(shlex.split(model.train_command)[1:])
    assert (train.config_file, train.eval_only, train.verify) == (name, False, False)
    evaluate = build_parser().parse_args(shlex.split(model.eval_command)[1:])
    assert (evaluate.config_file, evaluate.eval_only, evaluate.opts) == (None, True, [])
    assert evaluate.verify == bool(model.weights)
    output = train.opts[train.opts.index("OUTPUT_DIR") + 1]
    assert evaluate.checkpoint == (f"resnest://{name}" if model.weights else output)
    assert bool(train.train_json) == bool(evaluate.val_json) == model.own_data


# ---- models with weights ----


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Random weights of a small Mask R-CNN under the name of a published one."""
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(tmp_path))
    network = build_model(get_config("mask_rcnn_resnest50_fpn", [*SMALL, "MODEL.DEVICE", "cpu"]))
    weights = network.state_dict()
    torch.save({"model": weights}, tmp_path / "mask_rcnn_resnest50_fpn.pth")
    return weights


def test_get_gives_the_trained_model_in_evaluation_mode(stored):
    model = get("mask_rcnn_ResNeSt_50_FPN_syncBN_1x", device="cpu", opts=SMALL)
    assert not any(module.training for module in model.modules())
    loaded = model.state_dict()
    assert loaded.keys() == stored.keys()
    for name, value in stored.items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0)
    with torch.inference_mode():
        (output,) = model([{"image": torch.zeros(3, 64, 64)}])
    assert output["instances"].image_size == (64, 64)


def test_get_refuses_weights_without_heads(stored, tmp_path):
    backbone = {name: value for name, value in stored.items() if "roi_heads" not in name}
    torch.save({"model": backbone}, tmp_path / "mask_rcnn_resnest50_fpn.pth")
    with pytest.raises(ValueError, match="roi_heads"):
        get("mask_rcnn_resnest50_fpn", device="cpu", opts=SMALL)


def test_get_of_a_model_without_published_weights_says_so_and_names_others():
    with pytest.raises(ValueError) as caught:
        get("mask_rcnn_resnest269_fpn")
    message = str(caught.value)
    assert "mask_rcnn_resnest269_fpn" in message and "mask_rcnn_resnest101_fpn" in message
    assert "resnest-d2 train" in message

"""Loading: what fits is loaded under its right name, what does not is refused with its reason."""

import logging
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import META_ARCH_REGISTRY, build_model

from resnest_d2.checkpoint import (
    FORMATS,
    RECORD_KEY,
    RunCheckpointer,
    convert,
    make_record,
    read_weights,
    write_weights,
)
from resnest_d2.checkpoint.match import compare
from resnest_d2.checkpoint.statistics import CLASSIFIER, DETECTOR, MSRA, InputStatistics
from resnest_d2.config import get_config
from resnest_d2.modeling import ResNeSt

UNDER_FPN = "backbone.bottom_up."
TINY = (
    *("MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.RESNETS.WIDTH_PER_GROUP", "16"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "16", "MODEL.RESNETS.STEM_WIDTH", "8"),
)
NETWORK = {"width_per_group": 16, "res2_out_channels": 16, "stem_width": 8}  # the same backbone


def tiny(*opts, config="sample_mask_rcnn_resnest14_fpn"):
    return get_config(config, [*TINY, *opts])


def detector(*opts, **kwargs):
    return build_model(tiny(*opts, **kwargs))


def on_meta(cfg):
    with torch.device("meta"):
        return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)


def network(depth=14, **kwargs):
    return ResNeSt(depth=depth, **{**NETWORK, **kwargs})


def randomise(model):
    """Every tensor differs from any initial value."""
    state = model.state_dict()
    for value in state.values():
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 1.5)
    return {name: value.clone() for name, value in state.items()}


def save(path, tensors, **beside):
    torch.save({"model": tensors, **beside}, path)
    return str(path)


def heads(model):
    return {n: v.clone() for n, v in model.state_dict().items() if not n.startswith(UNDER_FPN)}


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


# ---- names ----


@pytest.mark.parametrize("container", ["pth", "safetensors"])
@pytest.mark.parametrize("source", FORMATS)
def test_weights_of_every_format_fill_the_backbone_and_nothing_else(source, container, tmp_path):
    weights = randomise(network(num_classes=1000))
    path = tmp_path / f"weights.{container}"
    write_weights(convert(weights, "resnest_d2", source), path)
    model = detector()
    before = heads(model)
    RunCheckpointer(model).load(str(path))
    for name, value in model.backbone.bottom_up.state_dict().items():
        assert torch.equal(value, weights[name]), name
    for name, value in heads(model).items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("given", ["", "backbone.", UNDER_FPN])
@pytest.mark.parametrize("prefix", ["", "backbone.", UNDER_FPN])
def test_backbone_is_found_bare_alone_and_under_fpn(given, prefix, tmp_path):
    weights = randomise(network())
    path = save(tmp_path / "weights.pth", {given + name: v for name, v in weights.items()})
    model = own = network()
    for name in reversed(prefix.split(".")[:-1]):
        model = nn.ModuleDict({name: model})
    RunCheckpointer(model).load(path)
    for name, value in own.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_msra_pickle_goes_detectron2s_way(tmp_path):
    opts = ("MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8")
    model = detector(*opts, config="mask_rcnn_resnet50_fpn")
    state, caffe2 = model.state_dict(), {"fc1000_w": np.zeros((1000, 8), np.float32)}
    caffe2["conv1_b"] = np.zeros(8, np.float32)
    words = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    kinds = {"weight": "gamma", "bias": "beta"}
    for name, value in state.items():
        if not name.startswith(UNDER_FPN) or name.endswith("num_batches_tracked"):
            continue
        *at, kind = name.removeprefix(UNDER_FPN).replace(".norm", "").split(".")
        start = "conv1" if at[0] == "stem" else "_".join([*at[:2], words[at[2]]])
        start = "res_conv1" if at[0] == "stem" and ".norm" in name else start
        end = f"bn_{kinds.get(kind, kind)}" if ".norm" in name else "w"
        caffe2[f"{start}_{end}"] = np.random.rand(*value.shape).astype(np.float32)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(caffe2, protocol=2))
    RunCheckpointer(model, statistics=MSRA).load(str(path))
    stock = detector(*opts, config="mask_rcnn_resnet50_fpn")
    DetectionCheckpointer(stock).load(str(path))
    expected = stock.backbone.bottom_up.state_dict()
    for name, value in model.backbone.bottom_up.state_dict().items():
        assert torch.equal(value, expected[name]), name
    loaded = model.backbone.bottom_up.state_dict()
    for ours, theirs in (
        ("stem.conv1.weight", "conv1_w"),
        ("stem.conv1.norm.running_var", "res_conv1_bn_running_var"),
        ("res2.0.shortcut.norm.bias", "res2_0_branch1_bn_beta"),
        ("res5.2.conv3.weight", "res5_2_branch2c_w"),
    ):
        assert torch.equal(loaded[ours], torch.from_numpy(caffe2[theirs])), ours
    with pytest.raises(ValueError, match=r"R-50\.pkl .*\n  weights: BGR, mean \[103.53"):
        RunCheckpointer(model, statistics=CLASSIFIER).load(str(path))
    deeper = {**caffe2, "res2_3_branch2a_w": caffe2["res2_2_branch2a_w"]}
    path.write_bytes(pickle.dumps(deeper, protocol=2))
    with pytest.raises(ValueError, match=r"not in the model: res2\.3\.conv1\.weight"):
        RunCheckpointer(model).load(str(path))
    # some have their statistics folded away, as FrozenBN alone can take them
    folded = {name: value for name, value in caffe2.items() if "running" not in name}
    path.write_bytes(pickle.dumps(folded, protocol=2))
    with pytest.raises(ValueError, match="missing: .*running_mean"):
        RunCheckpointer(model).load(str(path))
    frozen = detector(*opts, "MODEL.RESNETS.NORM", "FrozenBN", config="mask_rcnn_resnet50_fpn")
    RunCheckpointer(frozen).load(str(path))
    assert not frozen.backbone.bottom_up.stem.conv1.norm.running_mean.any()


def test_matching_heuristics_are_detectron2s_and_other_queries_are_refused(tmp_path):
    weights = randomise(network())
    path = save(tmp_path / "weights.pth", {f"a.b.{name}": v for name, v in weights.items()})
    model = nn.ModuleDict({"x": nn.ModuleDict({"a": nn.ModuleDict({"b": network()})})})
    RunCheckpointer(model, whole=True).load(f"{path}?matching_heuristics=True")
    assert torch.equal(model["x"]["a"]["b"].stem.conv1_1.weight, weights["stem.conv1_1.weight"])
    with pytest.raises(ValueError, match=r"\?matching_heuristics=True .* got \?heuristics"):
        RunCheckpointer(model).load(f"{path}?heuristics")


# ---- the table ----


def test_one_table_counts_per_part_and_names_a_few(tmp_path, log):
    weights = {f"{UNDER_FPN}{n}": v for n, v in network(num_classes=10).state_dict().items()}
    path = save(tmp_path / "weights.pth", weights)
    model = detector("MODEL.RESNETS.NORM", "FrozenBN")
    RunCheckpointer(model).load(path)
    tables = [r for r in log.records if r.name.startswith("resnest_d2") and "|" in r.message]
    assert len(tables) == 1 and tables[0].levelno == logging.INFO
    text = tables[0].message
    rows = [[word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines()]
    rows = {row[0]: row[1:] for row in rows if row}
    own = model.state_dict()
    count = {
        part: sum(name.startswith(prefix) and "tracked" not in name for name in own)
        for part, prefix in (
            ("stem", UNDER_FPN + "stem."),
            ("res4", UNDER_FPN + "res4."),
            ("FPN", "backbone.fpn_"),
            ("RPN", "proposal_generator."),
        )
    }
    assert path in text
    assert rows["stem"] == [str(count["stem"]), "0", "0", "0"]
    assert rows["res4"] == [str(count["res4"]), "0", "0", "0"]
    assert rows["FPN"] == ["0", str(count["FPN"]), "0", "0"]
    assert rows["RPN"] == ["0", str(count["RPN"]), "0", "0"]
    assert rows["classifier"] == ["0", "0", "2", "0"]
    assert "missing in RPN: proposal_generator.rpn_head.conv.weight, " in text
    assert "… 3 more" in text
    others = "\n".join(r.message for r in log.records if r is not tables[0])
    assert "proposal_generator" not in others  # Detectron2's own lists


def test_what_detectron2_ignores_is_no_mismatch():
    own = {"backbone.res2.0.conv1.norm.num_batches_tracked": torch.zeros(())}
    given = {
        "pixel_mean": torch.zeros(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
    }
    match = compare(own, given)
    assert not (match.matched or match.missing or match.unexpected or match.misshapen)


# ---- the backbone ----


def _official(model):
    return convert(randomise(model), "resnest_d2", "official")


@pytest.mark.parametrize(
    ("weights", "seen"),
    [
        (lambda: resnet50().state_dict(), "0 of its .*missing: .*stem.conv1_1.weight.*ResNet-50"),
        (lambda: _official(network(26)), r"not in the model: .*res2\.1\."),  # more blocks
        (lambda: _official(network(50)), r"not in the model: .*res2\.1\."),
        (lambda: _official(network(radix=1)), r"of another shape: .*\(.*in the file.*radix 1"),
        (lambda: _official(network(radix=4)), "radix 4.*radix 2"),
        (lambda: _official(network(stem_width=16)), r"stem.conv1_1.weight \(\(16, 3, 3, 3\) in"),
        (lambda: {"neck.weight": torch.ones(2)}, "missing"),
    ],
    ids=["ResNet-50", "26", "50", "radix 1", "radix 4", "stem", "none"],
)
def test_another_network_is_refused_with_both_described(weights, seen, tmp_path):
    path = save(tmp_path / "weights.pth", weights())
    model = detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    checkpointer = RunCheckpointer(model)
    with pytest.raises(ValueError, match=seen) as refusal:
        checkpointer.load(path)
    assert path in str(refusal.value) and "ALLOW_PARTIAL_BACKBONE" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with pytest.raises(ValueError, match=seen):  # and a second time, for its own reason
        checkpointer.load(path)


def test_fewer_blocks_and_a_lone_lost_tensor_are_refused(tmp_path):
    model = detector("MODEL.RESNETS.DEPTH", "26")
    path = save(tmp_path / "weights.pth", _official(network(14)))
    with pytest.raises(ValueError, match=r"missing: .*res2\.1\..* more"):
        RunCheckpointer(model).load(path)
    weights = _official(network())
    del weights["layer3.0.conv2.fc1.bias"]
    path = save(tmp_path / "weights.pth", weights)
    with pytest.raises(ValueError, match=r"missing: backbone\.bottom_up\.res4\.0\.conv2\.fc1\.b"):
        RunCheckpointer(detector()).load(path)


def test_partial_backbone_loads_where_the_user_says_so(tmp_path):
    weights = randomise(network())
    del weights["res4.0.conv2.fc1.bias"]
    cfg = tiny("RESNEST.ALLOW_PARTIAL_BACKBONE", "True")
    model = build_model(cfg)
    before = model.backbone.bottom_up.res4[0].conv2.fc1.bias.clone()
    path = save(tmp_path / "weights.pth", weights)
    RunCheckpointer.from_config(cfg, model).load(path)
    bottom_up = model.backbone.bottom_up
    assert torch.equal(bottom_up.res4[0].conv2.fc1.bias, before)
    assert torch.equal(bottom_up.stem.conv1_1.weight, weights["stem.conv1_1.weight"])


def test_stages_and_classifier_that_the_model_lacks_may_be_in_the_file(tmp_path):
    path = save(tmp_path / "weights.pth", _official(network(num_classes=21841)))
    RunCheckpointer(nn.ModuleDict({"backbone": network(out_features=("res3",))})).load(path)
    RunCheckpointer(detector()).load(path)
    with pytest.raises(ValueError, match=r"linear.weight \(\(21841, .*\(1000, "):
        RunCheckpointer(network(num_classes=1000)).load(path)


def test_plain_backbone_starts_a_deformable_one_but_is_not_all_of_it(tmp_path):
    deformable = {
        "deform_on_per_stage": (False, True, True, True),
        "deform_modulated": True,
        "deform_num_groups": 2,
    }
    path = save(tmp_path / "plain.pth", randomise(network()))
    RunCheckpointer(network(**deformable)).load(path)
    with pytest.raises(ValueError, match=r"missing: res3\.0\.conv2_offset\.weight"):
        RunCheckpointer(network(**deformable), whole=True).load(path)
    weights = randomise(network(**deformable))
    path = save(tmp_path / "deformable.pth", weights)
    with pytest.raises(ValueError, match=r"not in the model: .*res3\.0\.conv2_offset"):
        RunCheckpointer(network()).load(path)
    del weights["res4.0.conv2_offset.weight"]
    path = save(tmp_path / "damaged.pth", weights)
    with pytest.raises(ValueError, match=r"missing: res4\.0\.conv2_offset\.weight"):
        RunCheckpointer(network(**deformable)).load(path)


@pytest.mark.parametrize(("file", "model"), [("BN", "FrozenBN"), ("FrozenBN", "BN")])
def test_frozen_and_trained_batch_norms_exchange_weights(file, model, tmp_path):
    weights = randomise(detector("MODEL.RESNETS.NORM", file))
    model = detector("MODEL.RESNETS.NORM", model)
    RunCheckpointer(model, whole=True).load(save(tmp_path / "weights.pth", weights))
    for name, value in model.state_dict().items():
        assert name.endswith("tracked") or torch.equal(value, weights[name]), name


def test_weights_that_are_not_finite_are_refused(tmp_path):
    weights = randomise(network())
    weights["res3.0.conv1.weight"][0] = float("nan")
    path = save(tmp_path / "weights.pth", weights)
    with pytest.raises(ValueError, match=r"weights\.pth.*res3\.0\.conv1\.weight.*NaN"):
        RunCheckpointer(detector()).load(path)


# ---- heads ----


def test_one_class_fine_tune_initialises_just_the_predictors(tmp_path, log):
    weights = randomise(detector("MODEL.ROI_HEADS.NUM_CLASSES", "80"))
    path = save(tmp_path / "coco.pth", weights)
    model = detector("MODEL.ROI_HEADS.NUM_CLASSES", "1")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    RunCheckpointer(model).load(path)
    predictors = [
        f"roi_heads.{module}.{kind}"
        for module in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor")
        for kind in ("weight", "bias")
        if module != "box_predictor.bbox_pred" or weights[f"roi_heads.{module}.bias"].numel() > 4
    ]
    for name, value in model.state_dict().items():
        assert torch.equal(value, (before if name in predictors else weights)[name]), name
    (line,) = [r.message for r in log.records if "another class count" in r.message]
    for name in predictors:
        assert f"{name.rpartition('.')[0]} (80 -> 1)" in line
    with pytest.raises(ValueError, match="whole detector"):
        RunCheckpointer(model, whole=True).load(path)


RETINA = (
    *("MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.FPN.IN_FEATURES", "['res3','res4','res5']"),
    *("MODEL.BACKBONE.NAME", "build_resnest_retinanet_fpn_backbone"),
    *("MODEL.RETINANET.IN_FEATURES", "['p3','p4','p5','p6','p7']"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[32],[64],[128],[256],[512]]"),
)
PANOPTIC = ("MODEL.META_ARCHITECTURE", "PanopticFPN")
CASCADE = (
    *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
    *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
)
CLASSES, STUFF = "MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
POINTS = "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"


@pytest.mark.parametrize(
    ("opts", "key", "modules"),
    [
        (RETINA, "MODEL.RETINANET.NUM_CLASSES", ["head.cls_score"]),
        (
            CASCADE,
            CLASSES,
            ["roi_heads.mask_head.predictor"]
            + [f"roi_heads.box_predictor.{stage}.cls_score" for stage in range(3)],
        ),
        (PANOPTIC, STUFF, ["sem_seg_head.predictor"]),
        (
            ("MODEL.MASK_ON", "False", "MODEL.KEYPOINT_ON", "True"),
            POINTS,
            ["roi_heads.keypoint_head.score_lowres"],
        ),
    ],
    ids=["RetinaNet", "Cascade", "Panoptic", "Keypoint"],
)
def test_predictors_of_every_task_are_known(opts, key, modules):
    given, own = (on_meta(tiny(*opts, key, count)).state_dict() for count in ("54", "3"))
    match = compare(own, given)
    changed, problem = match.changed_predictors()
    assert changed == dict.fromkeys(modules, (54, 3)) and not problem
    assert {name.rpartition(".")[0] for name in match.misshapen} == set(modules)


@pytest.mark.parametrize(
    ("config", "head"),
    [("fcn_resnest50_ade20k", "fcn"), ("deeplabv3_resnest50_ade20k", "classifier")],
)
def test_predictors_of_the_published_segmentation_heads_are_known(config, head):
    given, own = (
        on_meta(get_config(config, [STUFF, count, "MODEL.SEM_SEG_HEAD.NORM", "BN"])).state_dict()
        for count in ("150", "3")
    )
    changed, problem = compare(own, given).changed_predictors()
    modules = [f"sem_seg_head.{part}.predictor" for part in (head, "aux_head")]
    assert changed == dict.fromkeys(modules, (150, 3)) and not problem


@pytest.mark.parametrize(
    ("opts", "name"),
    [
        (("MODEL.FPN.OUT_CHANNELS", "8"), "backbone.fpn_lateral2.weight"),
        (("MODEL.ROI_BOX_HEAD.FC_DIM", "8"), "roi_heads.box_head.fc1.weight"),
        (("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[1.0]]"), "proposal_generator.rpn_head.obj"),
        # one class and another kind of predictor
        (
            (CLASSES, "1", "MODEL.ROI_BOX_HEAD.FC_DIM", "8"),
            "roi_heads.box_predictor.cls_score.weight",
        ),
        (("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", "True"), "roi_heads.mask_head.predictor.weight"),
        (
            ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
            "roi_heads.box_predictor.bbox_pred.weight",
        ),
    ],
    ids=["FPN", "box head", "anchors", "box predictor", "mask for all", "box for all"],
)
def test_heads_of_another_shape_are_refused_by_name(opts, name, tmp_path):
    path = save(tmp_path / "weights.pth", detector().state_dict())
    with pytest.raises(ValueError, match="weights.pth has heads of another size") as refusal:
        RunCheckpointer(detector(*opts)).load(path)
    problem = str(refusal.value)
    assert name in problem or "more" in problem
    assert " in the file, " in problem


# ---- statistics ----


BGR = InputStatistics("BGR", DETECTOR.mean[::-1], DETECTOR.std[::-1])


def _config_text(statistics):
    cfg = tiny()
    cfg.INPUT.FORMAT = statistics.format
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [*statistics.mean], [*statistics.std]
    return make_record(cfg, ["a"])


@pytest.mark.parametrize(
    ("source", "beside", "fits", "refused"),
    [
        ("official", {}, [CLASSIFIER, DETECTOR], [MSRA, BGR]),
        ("mmcls", {}, [CLASSIFIER, DETECTOR], [MSRA, BGR]),
        ("mmdet", {}, [DETECTOR, CLASSIFIER], [MSRA, BGR]),
        ("resnest_d2", {}, [DETECTOR], [MSRA]),
        ("detectron2", {}, [DETECTOR], [MSRA]),
        # what the file says comes first
        ("detectron2", {RECORD_KEY: MSRA}, [MSRA], [DETECTOR, CLASSIFIER]),
        (
            "detectron2",
            {
                "provenance": {
                    "statistics": {"format": "RGB", "mean": [0.0] * 3, "std": [255.0] * 3}
                }
            },
            [InputStatistics("RGB", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))],
            [DETECTOR],
        ),
        ("official", {}, [], [InputStatistics("RGB", (123.0, 117.0, 104.0), DETECTOR.std)]),
        ("official", {}, [], [InputStatistics("RGB", DETECTOR.mean, (1.0, 1.0, 1.0))]),
        ("official", {}, [], [InputStatistics("RGB", (123.675,), (58.395,))]),
    ],
)
def test_statistics_that_weights_are_known_to_need_are_required(
    source, beside, fits, refused, tmp_path
):
    if isinstance(beside.get(RECORD_KEY), InputStatistics):
        beside = {RECORD_KEY: _config_text(beside[RECORD_KEY])}
    weights = convert(network().state_dict(), "resnest_d2", source)
    path = save(tmp_path / "weights.pth", weights, **beside)
    for statistics in fits:
        RunCheckpointer(network(), statistics=statistics).check(path)
    for statistics in refused:
        with pytest.raises(ValueError, match="weights.pth was trained with other images"):
            RunCheckpointer(network(), statistics=statistics).check(path)


def test_refusal_prints_both_and_lines_that_mend_the_config(tmp_path):
    path = save(tmp_path / "weights.pth", network().state_dict())
    bgr = [*("INPUT.FORMAT", "BGR", "MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]")]
    with pytest.raises(ValueError) as refusal:
        cfg = tiny(*bgr)
        RunCheckpointer.from_config(cfg, build_model(cfg)).load(path)
    lines = str(refusal.value).splitlines()
    assert any("config:  BGR" in line for line in lines)
    mended = [line.strip().split(" ", 1) for line in lines if line.startswith(("  I", "  M"))]
    assert len(mended) == 3
    cfg = tiny(*bgr, *(word.strip('"') for pair in mended for word in pair))
    RunCheckpointer.from_config(cfg, build_model(cfg)).load(path)
    cfg = tiny(*bgr, "RESNEST.ALLOW_STATISTICS_MISMATCH", "True")
    RunCheckpointer.from_config(cfg, build_model(cfg)).load(path)


def test_almost_equal_statistics_are_one_log_line(tmp_path, log):
    path = save(tmp_path / "weights.pth", _official(network()))
    for statistics, lines in ((DETECTOR, 1), (CLASSIFIER, 0)):
        log.clear()
        RunCheckpointer(network(), statistics=statistics).load(path)
        assert sum("too small to matter" in r.message for r in log.records) == lines
        log.clear()
        RunCheckpointer(network(), statistics=statistics).check(path)
        assert not log.records


def test_nothing_is_claimed_for_detectors_of_unknown_training(tmp_path, log):
    weights = randomise(detector())
    path = save(tmp_path / "weights.pth", weights)
    model = detector()
    log.clear()
    RunCheckpointer(model, statistics=MSRA).load(path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert not re.search("PIXEL_|statistics|mean", log.text)


def test_record_that_cannot_be_read_is_refused(tmp_path):
    path = save(tmp_path / "weights.pth", network().state_dict(), **{RECORD_KEY: {"config": "["}})
    with pytest.raises(ValueError, match="weights.pth is damaged"):
        RunCheckpointer(network(), statistics=DETECTOR).load(path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.int64])
def test_integers_in_place_of_weights_are_refused(tmp_path, dtype):
    state = network().state_dict()
    name = next(name for name in state if name.endswith("conv3.weight"))
    path = save(
        tmp_path / "weights.pth", {**state, name: torch.ones_like(state[name], dtype=dtype)}
    )
    with pytest.raises(ValueError, match=f"weights.pth has integers .*{name} .{dtype}"):
        RunCheckpointer(network()).load(path)
    with pytest.raises(ValueError, match=f"{name} is of the type {dtype}"):
        convert(read_weights(path).tensors, "resnest_d2", "official")


# ---- saving, resuming, trust ----


def test_stock_checkpointer_loads_what_is_saved(tmp_path):
    cfg = tiny()
    model = build_model(cfg)
    weights = randomise(model)
    RunCheckpointer(model, str(tmp_path), record=make_record(cfg, ["a"])).save("model")
    other = build_model(cfg)
    DetectionCheckpointer(other).load(str(tmp_path / "model.pth"))
    for name, value in other.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_resuming_takes_the_whole_model_and_everything_beside_it(tmp_path):
    model = detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    RunCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_0000001", iteration=1)
    again = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    resumed = RunCheckpointer(model, str(tmp_path), optimizer=again).resume_or_load("")
    assert resumed["iteration"] == 1 and again.param_groups[0]["lr"] == 0.5
    first = model.backbone.bottom_up.stem.conv1_1.weight
    assert torch.equal(again.state[first]["momentum_buffer"], torch.ones_like(first))
    with pytest.raises(ValueError, match="resuming need a whole"):
        RunCheckpointer(detector(CLASSES, "7"), str(tmp_path)).resume_or_load("")


def test_no_weights_mean_from_scratch(tmp_path):
    model = detector()
    before = heads(model)
    assert RunCheckpointer(model, str(tmp_path)).resume_or_load("", resume=True) == {}
    for name, value in heads(model).items():
        assert torch.equal(value, before[name]), name


def test_other_pickles_need_trust(tmp_path):
    weights = randomise(network())
    path = save(tmp_path / "weights.pth", weights, note=np.float64(1.0).dtype.type)
    with pytest.raises(ValueError, match=r"weights\.pth"):
        RunCheckpointer(network()).load(path)
    model = network()
    RunCheckpointer(model, trust_pickle=True).load(path)
    assert torch.equal(model.stem.conv1_1.weight, weights["stem.conv1_1.weight"])

"""The recipes for semantic segmentation have the published values, key by key."""

import pytest

from resnest_d2.config import get_config, list_configs
from resnest_d2.modeling.windows import PUBLISHED_SCALES

SETS = {"ade20k": ("ade20k", 20_210, 150), "pcontext": ("pcontext", 4_998, 59)}
SETS["cityscapes"] = ("citys", 2_975, 19)
RECIPES = [name for name in list_configs() if name.rpartition("_")[2] in SETS]
OURS = [name for name in RECIPES if not name.startswith("deeplabv3plus")]


@pytest.fixture
def published(facts):
    return facts("segmentation")


def test_there_is_a_recipe_for_each_published_model(published):
    for row in published["published"]:
        head, backbone, data = row["name"].split("_")
        head = {"deeplab": "deeplabv3"}.get(head, head)
        assert f"{head}_{backbone}_{'ade20k' if data == 'ade' else data}" in RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_schedule_and_step(name, published):
    cfg, known = get_config(name), published["training"]
    data, images, classes = SETS[name.rpartition("_")[2]]
    solver = cfg.SOLVER
    assert (solver.OPTIMIZER, solver.MOMENTUM, solver.NESTEROV) == ("SGD", 0.9, False)
    assert solver.WEIGHT_DECAY == solver.WEIGHT_DECAY_NORM == 1e-4
    assert solver.WEIGHT_DECAY_BIAS is None and solver.BIAS_LR_FACTOR == 1
    assert solver.IMS_PER_BATCH == known["batch"]
    assert solver.BASE_LR * solver.BACKBONE_MULTIPLIER == pytest.approx(known["lr"][data])
    assert solver.BASE_LR == pytest.approx(10 * known["lr"][data])  # of the heads
    assert (solver.LR_SCHEDULER_NAME, solver.POLY_LR_POWER) == ("WarmupPolyLR", 0.9)
    assert (solver.WARMUP_ITERS, solver.POLY_LR_CONSTANT_ENDING) == (0, 0)
    long = "101" in name or "200" in name
    epochs = known["epochs"]["ade20k resnest101/200" if data == "ade20k" and long else data]
    assert solver.MAX_ITER == epochs * (images // known["batch"])
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == classes
    assert cfg.INPUT.RANDOM_FLIP == "horizontal" and not cfg.INPUT.CROP.ENABLED
    jitter = cfg.RESNEST.JITTER
    assert tuple(jitter.SCALE) == (0.5, 2.0)
    if data != "citys":  # whose sizes are not known
        assert (jitter.SIZE, jitter.CROP) == (520, 480)


@pytest.mark.parametrize("name", OURS)
def test_network_and_heads(name, published):
    cfg = get_config(name)
    backbone, known = published["backbone"], published["deeplab_head"]
    resnets, head = cfg.MODEL.RESNETS, cfg.MODEL.SEM_SEG_HEAD
    assert (resnets.RES4_DILATION, resnets.RES5_DILATION) == (
        backbone["res4_dilation"],
        backbone["res5_dilation"],
    )
    assert resnets.DILATION_STYLE == "classifier" and head.COMMON_STRIDE == 8
    assert resnets.NORM == head.NORM == "SyncBN"
    assert list(head.IN_FEATURES) == list(resnets.OUT_FEATURES) == ["res4", "res5"]
    assert (head.LOSS_TYPE, head.LOSS_WEIGHT, head.AUX_LOSS_WEIGHT) == ("cross_entropy", 1, 0.2)
    assert head.IGNORE_VALUE == 255
    if name.startswith("fcn"):
        assert (head.NAME, head.CONVS_DIM) == ("ResNeStFCNHead", 512)
    else:
        assert (head.NAME, head.CONVS_DIM) == ("ResNeStDeepLabV3Head", known["inter"])
        assert head.ASPP_CHANNELS == known["inter"] and list(head.ASPP_DILATIONS) == [12, 24, 36]
        assert head.ASPP_DROPOUT == 0.5
    if "resnest" in name:
        assert cfg.INPUT.FORMAT == "RGB"
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        assert list(cfg.MODEL.PIXEL_MEAN) == pytest.approx([255 * value for value in mean])
        assert list(cfg.MODEL.PIXEL_STD) == pytest.approx([255 * value for value in std])


def test_the_published_protocol_is_the_default_of_its_keys(published):
    known = published["evaluation"]["published"]
    assert all(f"{scale}" in known for scale in PUBLISHED_SCALES) and len(PUBLISHED_SCALES) == 6
    keys = get_config(RECIPES[0]).RESNEST.SEGMENT
    assert (keys.BASE_SIZE, keys.WINDOW, keys.FLIP) == (520, 480, True)
    assert "base size 520" in known and "windows of 480" in known

"""Builders: what the config says is what is built, and a bad value is refused by its key."""

import pytest
import torch

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone

import resnest_d2
from resnest_d2.modeling import VARIANTS, ResNeSt
from resnest_d2.modeling.norm import PortableSyncBatchNorm

BUILDERS = (
    "build_resnest_backbone",
    "build_resnest_fpn_backbone",
    "build_resnest_retinanet_fpn_backbone",
)
FPN_FEATURES = {
    "build_resnest_fpn_backbone": ["res2", "res3", "res4", "res5"],
    "build_resnest_retinanet_fpn_backbone": ["res3", "res4", "res5"],
}


def config(builder: str = "build_resnest_backbone", depth: int = 14, **resnets):
    cfg = get_cfg()
    resnest_d2.add_resnest_config(cfg)
    cfg.MODEL.BACKBONE.NAME = builder
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.IN_FEATURES = FPN_FEATURES.get(builder, [])
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.DEPTH = depth
    for key, value in resnets.items():
        cfg.MODEL.RESNETS[key] = value
    return cfg


def build(cfg, channels: int = 3):
    with torch.device("meta"):
        return BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, ShapeSpec(channels=channels))


def names_and_shapes(model):
    return {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", BUILDERS)
def test_importing_the_package_registers_the_builders(name):
    assert BACKBONE_REGISTRY.get(name) is getattr(resnest_d2, name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_config_builds_the_same_network_as_its_variant(variant):
    arguments = VARIANTS[variant]
    cfg = config(
        **{
            ("DEPTH" if k == "depth" else k.upper()): v
            for k, v in arguments.items()
            if k != "depth"
        },
        depth=arguments["depth"],
    )
    with torch.device("meta"):
        expected = ResNeSt.from_variant(variant)
    actual = build(cfg)
    assert names_and_shapes(actual) == names_and_shapes(expected)
    assert str(actual) == str(expected)  # options of every layer


@pytest.mark.parametrize(
    "builder, expected",
    [
        ("build_resnest_fpn_backbone", {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}),
        (
            "build_resnest_retinanet_fpn_backbone",
            {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128},
        ),
    ],
)
@pytest.mark.parametrize("norm", ["", "BN", "GN"])
def test_pyramid_has_its_levels_and_strides(builder, expected, norm):
    cfg = config(builder)
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM = 32, norm
    cfg.MODEL.DEVICE = "cpu"
    model = build_backbone(cfg).eval()
    assert {name: spec.stride for name, spec in model.output_shape().items()} == expected
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 128, 192))
    assert {k: v.shape for k, v in outputs.items()} == {
        k: (1, 32, 128 // stride, -(-192 // stride)) for k, stride in expected.items()
    }


def test_options_reach_the_network():
    cfg = config(
        RADIX=4,
        NUM_GROUPS=2,
        BOTTLENECK_WIDTH=40,
        AVD_FIRST=True,
        AVG_DOWN=False,
        STEM_WIDTH=24,
        RES2_OUT_CHANNELS=128,
        RES4_DILATION=2,
        RES5_DILATION=4,
        DEFORM_ON_PER_STAGE=[False, False, False, True],
        DEFORM_MODULATED=True,
        DEFORM_NUM_GROUPS=2,
        NORM="GN",
        OUT_FEATURES=["stem", "res5"],
    )
    cfg.MODEL.BACKBONE.FREEZE_AT = 1
    with torch.device("meta"):
        expected = ResNeSt(
            14,
            in_channels=4,
            radix=4,
            num_groups=2,
            bottleneck_width=40,
            avd_first=True,
            avg_down=False,
            stem_width=24,
            res2_out_channels=128,
            res4_dilation=2,
            res5_dilation=4,
            deform_on_per_stage=(False, False, False, True),
            deform_modulated=True,
            deform_num_groups=2,
            norm="GN",
            out_features=("stem", "res5"),
            freeze_at=1,
        )
    actual = build(cfg, channels=4)
    assert names_and_shapes(actual) == names_and_shapes(expected) and str(actual) == str(expected)
    assert actual.output_shape() == expected.output_shape()
    assert not any(p.requires_grad for p in actual.stem.parameters())
    assert all(p.requires_grad for p in actual.res2.parameters())


def test_7x7_stem_takes_its_width_from_the_config():
    stem = build(config(DEEP_STEM=False, STEM_OUT_CHANNELS=48)).stem
    assert stem.conv1.weight.shape == (48, 3, 7, 7)


@pytest.mark.parametrize("builder", BUILDERS[1:])
def test_sync_bn_of_the_pyramid_works_without_a_gpu(builder):
    cfg = config(builder)
    cfg.MODEL.FPN.NORM = "SyncBN"
    modules = list(build(cfg).modules())
    assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in modules)
    layers = 2 * len(cfg.MODEL.FPN.IN_FEATURES)  # a lateral and an output convolution each
    assert sum(isinstance(m, PortableSyncBatchNorm) for m in modules) == layers


@pytest.mark.parametrize("norm", ["SyncBN", "FrozenBN", "naiveSyncBN", ""])
def test_norm_comes_from_the_config(norm):
    with torch.device("meta"):
        expected = ResNeSt(14, norm=norm)
    assert str(build(config(NORM=norm))) == str(expected)


@pytest.mark.parametrize(
    "key, value, choices",
    [
        ("DEPTH", 18, ["14", "26", "50", "101", "200", "269"]),
        ("NORM", "XN", ["BN", "SyncBN", "naiveSyncBN", "FrozenBN", "GN"]),
        ("OUT_FEATURES", ["res6"], ["stem", "res2", "res5"]),
        ("RES4_DILATION", 3, ["(1, 2, 4)"]),
        ("RES5_DILATION", 3, ["(1, 2, 4)"]),
        ("STRIDE_IN_1X1", True, ["False", "AVD"]),
        ("RADIX", 3, ["64"]),
        ("RADIX", -1, ["at least 0"]),
        ("NUM_GROUPS", 0, ["at least 1"]),
        ("WIDTH_PER_GROUP", 0, ["at least 1"]),
        ("BOTTLENECK_WIDTH", 0, ["at least 1"]),
        ("RES2_OUT_CHANNELS", 0, ["at least 1"]),
        ("STEM_WIDTH", -1, ["at least 0"]),
        ("DEFORM_ON_PER_STAGE", [True, True], ["res2", "res5"]),
        ("DEFORM_NUM_GROUPS", 3, ["64"]),
    ],
)
def test_bad_value_raises_with_key_value_and_choices(key, value, choices):
    cfg = config(DEFORM_ON_PER_STAGE=[True] * 4) if key == "DEFORM_NUM_GROUPS" else config()
    cfg.MODEL.RESNETS[key] = value
    with pytest.raises(ValueError) as error:
        build(cfg)
    got = value[0] if key == "OUT_FEATURES" else value
    for word in (f"MODEL.RESNETS.{key} ", str(got), *choices):
        assert word in str(error.value)


@pytest.mark.parametrize("freeze_at", [9, -1])
def test_bad_freeze_at_raises_with_key_value_and_choices(freeze_at):
    cfg = config()
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    with pytest.raises(ValueError, match=rf"MODEL\.BACKBONE\.FREEZE_AT .*0, 1, .*5.*{freeze_at}"):
        build(cfg)


@pytest.mark.parametrize("builder", BUILDERS[1:])
def test_pyramid_over_a_stage_that_is_no_output_raises_with_the_key(builder):
    cfg = config(builder, OUT_FEATURES=["res3", "res5"])
    with pytest.raises(ValueError, match=r"MODEL\.FPN\.IN_FEATURES .*'res3', 'res5'.*'res[24]'"):
        build(cfg)


def test_unknown_norm_of_the_pyramid_is_refused_with_key_and_choices():
    cfg = config("build_resnest_fpn_backbone")
    cfg.MODEL.FPN.NORM = "XBN"
    with pytest.raises(ValueError, match=r"MODEL\.FPN\.NORM must be one of .*'GN'.*got 'XBN'"):
        build(cfg)


def test_retinanet_pyramid_without_res5_raises_with_the_key():
    cfg = config(BUILDERS[2], OUT_FEATURES=["res3", "res4"])
    with pytest.raises(ValueError, match=r"MODEL\.RESNETS\.OUT_FEATURES .*res5.*'res3', 'res4'"):
        build(cfg)


@pytest.mark.parametrize("builder", BUILDERS)
def test_config_without_our_keys_raises_with_what_to_call(builder):
    cfg = get_cfg()
    with pytest.raises(KeyError, match=r"MODEL\.RESNETS\.RADIX.*add_resnest_config\(cfg\)"):
        BACKBONE_REGISTRY.get(builder)(cfg, ShapeSpec(channels=3))


def test_images_may_have_any_number_of_channels():
    cfg = config(BUILDERS[1])
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * 6, [1.0] * 6
    with torch.device("meta"):
        model = build_backbone(cfg)  # channels from PIXEL_MEAN
    assert model.bottom_up.stem.conv1_1.in_channels == 6

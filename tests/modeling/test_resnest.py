"""Structure and options of the backbone: names, shapes, counts, gradients, what is refused."""

import itertools
import re

import pytest
import torch
from references import build_reference, our_name
from torch import nn

from detectron2.layers import FrozenBatchNorm2d

from resnest_d2.errors import ArgumentError
from resnest_d2.modeling import VARIANTS, ResNeSt
from resnest_d2.modeling.resnest import DEPTHS, Bottleneck

STAGES = ("res2", "res3", "res4", "res5")
DCN = {
    "deform_on_per_stage": (False, True, True, True),
    "deform_modulated": True,
    "deform_num_groups": 2,
}


def on_meta(variant: str = "resnest14", **kwargs) -> ResNeSt:
    """A network without memory: for names and shapes."""
    with torch.device("meta"):
        return ResNeSt.from_variant(variant, **kwargs)


def names_and_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def released_names_and_shapes(depth: int, *, modulated_stages=(), deform_groups=1):
    """What a released detection backbone of this depth holds (radix 2, cardinality 1)."""
    blocks_per_stage, w = DEPTHS[depth]
    entries = {}

    def conv(name, norm, c_out, c_in, kernel):
        entries[f"{name}.weight"] = (c_out, c_in, kernel, kernel)
        bn(norm, c_out)

    def bn(name, channels):
        for value in ("weight", "bias", "running_mean", "running_var"):
            entries[f"{name}.{value}"] = (channels,)
        entries[f"{name}.num_batches_tracked"] = ()

    for i, (c_in, c_out) in enumerate(((3, w), (w, w), (w, 2 * w)), start=1):
        conv(f"stem.conv1_{i}", f"stem.conv1_{i}.norm", c_out, c_in, 3)
    c_in = 2 * w
    for k, blocks in enumerate(blocks_per_stage):
        c, c_out = 64 * 2**k, 256 * 2**k
        inner = max(c // 2, 32)
        for block in range(blocks):
            name = f"res{k + 2}.{block}"
            if block == 0:
                conv(f"{name}.shortcut", f"{name}.shortcut.norm", c_out, c_in, 1)
            conv(f"{name}.conv1", f"{name}.conv1.norm", c, c_in, 1)
            if f"res{k + 2}" in modulated_stages:
                entries[f"{name}.conv2_offset.weight"] = (
                    27 * deform_groups,
                    c // deform_groups,
                    3,
                    3,
                )
                entries[f"{name}.conv2_offset.bias"] = (27 * deform_groups,)
            conv(f"{name}.conv2.conv", f"{name}.conv2.bn0", 2 * c, c // 2, 3)
            conv(f"{name}.conv2.fc1", f"{name}.conv2.bn1", inner, c, 1)
            entries[f"{name}.conv2.fc1.bias"] = (inner,)
            entries[f"{name}.conv2.fc2.weight"] = (2 * c, inner, 1, 1)
            entries[f"{name}.conv2.fc2.bias"] = (2 * c,)
            conv(f"{name}.conv3", f"{name}.conv3.norm", c_out, c, 1)
            c_in = c_out
    return entries


# State dict and parameter counts


@pytest.mark.parametrize("depth", DEPTHS)
def test_names_and_shapes_are_those_of_released_backbones(depth):
    assert names_and_shapes(on_meta(f"resnest{depth}")) == released_names_and_shapes(depth)


def test_names_and_shapes_with_deformable_stages_are_those_of_released_backbones():
    expected = released_names_and_shapes(50, modulated_stages=STAGES[1:], deform_groups=2)
    assert names_and_shapes(on_meta("resnest50", **DCN)) == expected
    assert len(expected) == 500
    assert expected["res3.0.conv2_offset.weight"] == (54, 64, 3, 3)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in ("resnest14", "resnest26")])
def test_names_and_shapes_are_those_of_the_official_model_renamed(variant):
    with torch.device("meta"):
        official = build_reference("official", variant)
    expected = {our_name(name): shape for name, shape in names_and_shapes(official).items()}
    assert names_and_shapes(on_meta(variant, num_classes=1000)) == expected


def test_names_and_shapes_are_those_of_the_original_plugin(facts):
    plugin = facts("keymaps")["d2_plugin_backbone"]
    plain, dcn = (
        names_and_shapes(on_meta("resnest50")),
        names_and_shapes(on_meta("resnest50", **DCN)),
    )
    assert len(plain) == plugin["counts"]["resnest50"] == 474
    assert dict(dcn, **plain) == dcn and len(dcn) == 500
    samples = [part for key, part in plugin.items() if key.startswith(("stem", "block", "plain"))]
    assert len(samples) == 4
    for part in [*samples, plugin["dcn_extra_res3.0"]]:
        for name, shape in part.items():
            assert dcn[name] == tuple(shape), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_of_parameters_and_names_are_the_published(variant, facts):
    expected = facts("backbones")["models"][variant]
    for suffix, key, num_classes in (
        ("", "params_with_1000_fc", 1000),
        ("_without_fc", "params_without_fc", None),
    ):
        model = on_meta(variant, num_classes=num_classes)
        assert sum(p.numel() for p in model.parameters()) == expected[key]
        assert len(model.state_dict()) == expected[f"state_dict_keys{suffix}"]
    widths = [getattr(model, stage)[0].conv1.out_channels for stage in STAGES]
    inner = [getattr(model, stage)[0].conv2.fc1.out_channels for stage in STAGES]
    assert widths == expected["group_width_per_stage"]
    assert inner == expected["attention_inter_channels_per_stage"]
    assert [len(getattr(model, stage)) for stage in STAGES] == expected["blocks_per_stage"]


# Gradients


@pytest.mark.parametrize(
    "variant, options",
    [pytest.param(v, {}, id=v) for v in VARIANTS]
    + [pytest.param("resnest14", DCN, id="resnest14-dcn")],
)
def test_every_parameter_receives_a_gradient(variant, options):
    model = ResNeSt.from_variant(variant, num_classes=10, **options)
    for name, parameter in model.named_parameters():
        if "conv2_offset" in name:  # off the grid points, where bilinear sampling has a kink
            nn.init.normal_(parameter, std=0.01)
    outputs = model(torch.randn(2, 3, 64, 64))
    sum((out * torch.randn_like(out)).mean() for out in outputs.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not name.endswith("fc1.bias"):  # zero: the batch norm behind it subtracts it
            assert parameter.grad.any(), name


def test_offset_convolutions_receive_gradients_from_their_initial_zeros():
    model = ResNeSt.from_variant("resnest14", **DCN)
    model(torch.randn(2, 3, 64, 64))["res5"].square().mean().backward()
    offsets = {n: p.grad for n, p in model.named_parameters() if "conv2_offset" in n}
    assert len(offsets) == 6 and all(grad.any() for grad in offsets.values())


# Outputs


@pytest.mark.parametrize("size", [(32, 32), (65, 97), (1, 1), (33, 200)])
def test_strides_round_up(size):
    model = ResNeSt.from_variant("resnest14", out_features=("stem", *STAGES)).eval()
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, *size))
    assert list(outputs) == ["stem", *STAGES]
    for name, spec in model.output_shape().items():
        h, w = (-(-n // spec.stride) for n in size)
        assert outputs[name].shape == (1, spec.channels, h, w), name


@pytest.mark.parametrize(
    "out_features", [c for n in (1, 2) for c in itertools.combinations(("stem", *STAGES), n)]
)
def test_stages_after_the_last_output_are_not_built(out_features):
    model = ResNeSt.from_variant("resnest14", out_features=out_features).eval()
    last = out_features[-1]
    expected = STAGES[: STAGES.index(last) + 1] if last in STAGES else ()
    assert [name for name, _ in model.named_children()] == ["stem", *expected]
    with torch.no_grad():
        assert (
            tuple(model(torch.randn(1, 3, 32, 32))) == out_features == tuple(model.output_shape())
        )


def test_a_classifier_adds_its_logits_to_the_outputs_and_needs_all_stages():
    model = ResNeSt.from_variant("resnest14", num_classes=7, out_features=("res3",)).eval()
    with torch.no_grad():
        outputs = model(torch.randn(2, 3, 32, 32))
    assert list(outputs) == ["res3", "linear"] == list(model.output_shape())
    assert outputs["linear"].shape == (2, 7) and hasattr(model, "res5")


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("deep_stem", [True, False])
def test_images_may_have_any_number_of_channels(channels, deep_stem):
    model = ResNeSt.from_variant("resnest14", in_channels=channels, deep_stem=deep_stem).eval()
    with torch.no_grad():
        assert model(torch.randn(1, channels, 40, 40))["res5"].shape == (1, 2048, 2, 2)


@pytest.mark.parametrize("res4_dilation, res5_dilation", [*itertools.product((1, 2, 4), repeat=2)])
def test_dilated_stages_keep_the_resolution(res4_dilation, res5_dilation):
    model = ResNeSt.from_variant(
        "resnest26",
        res4_dilation=res4_dilation,
        res5_dilation=res5_dilation,
        out_features=("stem", *STAGES),
    ).eval()
    res4 = 16 if res4_dilation == 1 else 8
    strides = [4, 4, 8, res4, 2 * res4 if res5_dilation == 1 else res4]
    assert [spec.stride for spec in model.output_shape().values()] == strides
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 65, 97))
    for out, stride in zip(outputs.values(), strides, strict=True):
        assert out.shape[2:] == (-(-65 // stride), -(-97 // stride))
    for stage, dilation in (("res4", res4_dilation), ("res5", res5_dilation)):
        for block in getattr(model, stage):
            assert block.conv2.conv.dilation == (dilation, dilation)


# Options


@pytest.mark.parametrize("option", ["avd", "avg_down", "deep_stem"])
def test_options_that_are_off_keep_shapes_and_other_names(option):
    model = ResNeSt.from_variant("resnest14", **{option: False}).eval()
    default = on_meta("resnest14")
    blocks = [block for stage in model.stages for block in stage]
    pools = {type(m) for block in blocks for m in (block.pool_before, block.pool_after)}
    shortcut_pools = {type(block.shortcut_pool) for block in blocks}
    assert (nn.AvgPool2d in pools) == (option != "avd")
    assert (nn.AvgPool2d in shortcut_pools) == (option != "avg_down")
    with torch.no_grad():
        assert model(torch.randn(1, 3, 65, 97))["res5"].shape == (1, 2048, 3, 4)
    if option == "deep_stem":
        stem = {k: v for k, v in names_and_shapes(model).items() if k.startswith("stem")}
        assert stem["stem.conv1.weight"] == (64, 3, 7, 7) and len(stem) == 6
    else:
        assert names_and_shapes(model) == names_and_shapes(default)
    stride = (2, 2) if option == "avd" else (1, 1)
    assert model.res3[0].conv2.conv.stride == stride
    stride = (2, 2) if option == "avg_down" else (1, 1)
    assert model.res3[0].shortcut.stride == stride


def test_pool_comes_before_split_attention_in_fast_variants():
    fast, default = on_meta("resnest50_fast_2s1x64d"), on_meta("resnest50")
    assert isinstance(fast.res3[0].pool_before, nn.AvgPool2d)
    assert isinstance(fast.res3[0].pool_after, nn.Identity)
    assert isinstance(default.res3[0].pool_before, nn.Identity)
    assert isinstance(default.res3[0].pool_after, nn.AvgPool2d)


def test_stride_can_be_in_the_first_convolution_without_avd():
    model = ResNeSt.from_variant("resnest14", avd=False, stride_in_1x1=True).eval()
    assert model.res3[0].conv1.stride == (2, 2) and model.res3[0].conv2.conv.stride == (1, 1)
    with torch.no_grad():
        assert model(torch.randn(1, 3, 65, 97))["res5"].shape == (1, 2048, 3, 4)


@pytest.mark.parametrize(
    "options",
    [
        {"radix": 0},
        {"radix": 0, "num_groups": 2},
        {"radix": 1},
        {"radix": 2, "num_groups": 2, "bottleneck_width": 40},
        {"radix": 4, "num_groups": 4},
        {"width_per_group": 32},
        {"stem_width": 16},
        {"res2_out_channels": 128},
        {"radix": 0, "deform_on_per_stage": (True,) * 4},
        {"radix": 4, "num_groups": 2, "deform_on_per_stage": (True,) * 4, "deform_num_groups": 4},
        {"avd_first": True, "res5_dilation": 2, **DCN},
    ],
    ids=str,
)
def test_other_widths_and_cardinalities_train(options):
    model = ResNeSt.from_variant("resnest14", **options)
    outputs = model(torch.randn(2, 3, 64, 64))
    sum(out.square().mean() for out in outputs.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    for name, spec in model.output_shape().items():
        assert outputs[name].shape[1:] == (spec.channels, 64 // spec.stride, 64 // spec.stride)


@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing_covers_exactly_the_first_stages(freeze_at):
    model = ResNeSt.from_variant("resnest14", freeze_at=freeze_at)
    assert names_and_shapes(model) == names_and_shapes(on_meta("resnest14"))
    for i, stage in enumerate(("stem", *STAGES), start=1):
        part = getattr(model, stage)
        frozen = i <= freeze_at
        assert all(p.requires_grad != frozen for p in part.parameters())
        norms = [m for m in part.modules() if isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d))]
        assert norms and all(isinstance(m, FrozenBatchNorm2d) == frozen for m in norms)


def test_frozen_stages_do_not_change_in_training():
    model = ResNeSt.from_variant("resnest14", freeze_at=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(2, 3, 64, 64))["res5"].square().mean().backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        if not name.endswith("fc1.bias"):
            assert torch.equal(value, before[name]) == name.startswith(("stem.", "res2.")), name


# Initial weights


def test_initial_activations_keep_their_scale():
    """Grouped convolutions count the outputs of their own group only."""
    conv = ResNeSt.from_variant("resnest14").res5[0].conv2.conv
    assert conv.groups == 2
    expected = (2 / (9 * 1024 / 2)) ** 0.5
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)


# Bad input


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"depth": 42}, ["depth", "42", "14", "269"]),
        ({"norm": "XN"}, ["norm", "'XN'", "SyncBN", "FrozenBN", "GN"]),
        ({"out_features": ("res6",)}, ["out_features", "'res6'", "stem", "res5"]),
        ({"out_features": ("linear",)}, ["out_features", "'linear'", "stem", "res5"]),
        ({"out_features": ()}, ["out_features", "()", "stem", "res5"]),
        ({"out_features": "res5"}, ["out_features", "list", "'res5'"]),
        ({"res4_dilation": 3}, ["res4_dilation", "3", "(1, 2, 4)"]),
        ({"res5_dilation": 0}, ["res5_dilation", "0", "(1, 2, 4)"]),
        ({"freeze_at": 9}, ["freeze_at", "9", "5"]),
        ({"freeze_at": -1}, ["freeze_at", "-1", "0"]),
        ({"stride_in_1x1": True}, ["stride_in_1x1", "False", "AVD", "True"]),
        ({"deform_on_per_stage": (True,)}, ["deform_on_per_stage", "res2", "res5", "(True,)"]),
        (
            {"deform_on_per_stage": (True,) * 4, "deform_num_groups": 3},
            ["deform_num_groups", "64", "3"],
        ),
        ({"deform_on_per_stage": (True,) * 4, "deform_num_groups": 0}, ["deform_num_groups", "0"]),
        ({"radix": 3}, ["radix", "64", "3"]),
        ({"radix": -1}, ["radix", "at least 0", "-1"]),
        ({"num_groups": 0}, ["num_groups", "at least 1", "0"]),
        ({"in_channels": 0}, ["in_channels", "at least 1", "0"]),
        ({"stem_width": -2}, ["stem_width", "-2"]),
        ({"num_classes": 0}, ["num_classes", "at least 1", "0"]),
        ({"width_per_group": 1, "bottleneck_width": 24}, ["width_per_group", "at least 1", "24"]),
    ],
    ids=str,
)
def test_bad_arguments_raise_with_name_value_and_choices(arguments, words):
    with pytest.raises(ArgumentError) as error:
        ResNeSt(**{"depth": 14, **arguments})
    assert error.value.argument == words[0]
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "argument, value, choices",
    [("stride", 0, "(1, 2)"), ("stride", 3, "(1, 2)"), ("dilation", 0, "(1, 2, 4)")],
)
def test_a_block_refuses_a_stride_or_dilation_that_cannot_be(argument, value, choices):
    message = rf"{argument} must be one of {re.escape(choices)}, got {value}"
    with pytest.raises(ArgumentError, match=message):
        Bottleneck(8, 16, bottleneck_channels=8, **{argument: value})


def test_unknown_variant_raises_with_the_choices():
    with pytest.raises(ValueError, match="resnest51.*|variant") as error:
        ResNeSt.from_variant("resnest51")
    for word in ("resnest51", *VARIANTS):
        assert word in str(error.value)

"""Arithmetic equals the official models and timm's, with random weights and statistics.

In float64: with random weights, float32 errors of a deep network against itself exceed what a
wrong detail would cause.
"""

import pytest
import torch
from references import (
    our_name,
    reference_names,
    reference_outputs,
    relative_error,
    same_weights,
)
from torch import nn

from resnest_d2.modeling import VARIANTS, ResNeSt

SIZES = [(97, 131), (224, 224), (225, 230)]
# The rest of each matrix is marked slow.
ALL_SIZES_BY_DEFAULT = ("resnest14", "resnest50")
TRAINED_BY_DEFAULT = ("resnest14", "resnest50", "resnest50_fast_4s2x40d", "resnest50_fast_1s4x24d")


def slow_unless(default: bool, *values):
    return pytest.param(*values, marks=[] if default else pytest.mark.slow)


@pytest.mark.parametrize(
    "variant, size",
    [
        slow_unless(v in ALL_SIZES_BY_DEFAULT or s == SIZES[0], v, s)
        for v in VARIANTS
        for s in SIZES
    ],
)
def test_evaluation_outputs_equal_the_references(variant, size):
    ours, references = same_weights(variant, reference_names(variant))
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        actual = ours.eval()(x)
        for kind, reference in references.items():
            expected = reference_outputs(reference.eval(), x)
            errors = {name: relative_error(actual[name], expected[name]) for name in expected}
            assert set(errors) == {"res2", "res3", "res4", "res5", "linear"}
            assert max(errors.values()) < 1e-9, (kind, errors)


@pytest.mark.parametrize("variant", ["resnest14", "resnest26", "resnest50", "resnest101"])
def test_float32_evaluation_outputs_equal_the_references(variant):
    ours, references = same_weights(variant, reference_names(variant), torch.float32)
    x = torch.randn(1, 3, 97, 131)
    with torch.no_grad():
        actual = ours.eval()(x)
        for kind, reference in references.items():
            expected = reference_outputs(reference.eval(), x)
            errors = {name: relative_error(actual[name], expected[name]) for name in expected}
            assert max(errors.values()) < 1e-5, (kind, errors)


@pytest.mark.parametrize(
    "variant, kind",
    [
        slow_unless(v in TRAINED_BY_DEFAULT, v, kind)
        for v in VARIANTS
        for kind in reference_names(v)
    ],
)
def test_training_step_equals_the_references(variant, kind):
    ours, references = same_weights(variant, [kind])
    tolerance = 1e-6 if variant in ("resnest200", "resnest269") else 1e-8
    compare_training_steps(ours, references[kind], tolerance=tolerance)


def compare_training_steps(ours: nn.Module, reference: nn.Module, *, tolerance: float) -> None:
    """Outputs, gradients and statistics of one step of both are equal."""
    x = torch.randn(4, 3, 65, 97, dtype=torch.float64)

    def step(network, forward):
        """Outputs, gradients by our names, batch norm buffers by our names."""
        image = x.clone().requires_grad_()
        outputs = forward(image)
        torch.manual_seed(1)
        loss = x.new_zeros(())
        for name in sorted(outputs):
            loss = loss + (outputs[name] * torch.randn_like(outputs[name])).sum()
        loss.backward()
        gradients = {n: p.grad for n, p in network.named_parameters()} | {"image": image.grad}
        return outputs, gradients, dict(network.named_buffers())

    outputs, gradients, statistics = step(ours.train(), ours)
    expected = step(reference.train(), lambda image: reference_outputs(reference, image))
    expected = [{our_name(name): value for name, value in part.items()} for part in expected]
    for actual_part, expected_part in zip((outputs, gradients, statistics), expected, strict=True):
        assert set(actual_part) == set(expected_part)
    for name in outputs:
        assert relative_error(outputs[name], expected[0][name]) < tolerance, name
    for name, gradient in gradients.items():
        if name.endswith("fc1.bias"):  # the batch norm behind it takes it away: rounding is left
            scale = gradients[name.replace("bias", "weight")].norm()
            assert max(gradient.norm(), expected[1][name].norm()) < 1e-8 * scale, name
        else:
            assert relative_error(gradient, expected[1][name]) < tolerance, name
    for name, value in statistics.items():
        if name.endswith("num_batches_tracked"):
            assert value == expected[2][name] == 1
        else:
            assert relative_error(value, expected[2][name]) < tolerance, name


@pytest.mark.parametrize("dilations", [(1, 2), (2, 4)], ids=str)
@pytest.mark.parametrize(
    "variant, size",
    [
        slow_unless((v, s) == ("resnest50", SIZES[0]), v, s)
        for v in ("resnest50", "resnest101")
        for s in (SIZES[0], SIZES[2])
    ],
)
def test_dilated_networks_equal_the_official_ones(variant, size, dilations):
    ours, official = dilated(variant, dilations)
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        actual, expected = ours.eval()(x), reference_outputs(official.eval(), x)
    assert actual["res5"].shape[-2:] == actual["res4" if dilations[0] == 1 else "res3"].shape[-2:]
    for name in expected:
        assert relative_error(actual[name], expected[name]) < 1e-9, name


@pytest.mark.parametrize(
    "variant", [slow_unless(v == "resnest50", v) for v in ("resnest50", "resnest101")]
)
def test_training_step_of_a_dilated_network_equals_the_official_one(variant):
    compare_training_steps(*dilated(variant, (2, 4)), tolerance=1e-8)


def dilated(variant: str, dilations: tuple[int, int]):
    """Our dilated network in the classifiers' style, and the official one."""
    ours, references = same_weights(
        variant,
        ["official"],
        res4_dilation=dilations[0],
        res5_dilation=dilations[1],
        dilation_style="classifier",
        reference_kwargs={"dilated": True} if dilations[0] > 1 else {"dilation": dilations[1]},
    )
    return ours, references["official"]


@pytest.mark.parametrize("dilations", [(1, 2), (2, 4)], ids=str)
def test_the_plugins_dilated_stages_differ_from_the_classifiers_in_two_details(dilations):
    """The classifiers' first block has the dilation before, and a 3x3 average pool of stride 1."""
    settings = {"res4_dilation": dilations[0], "res5_dilation": dilations[1]}
    plugin = ResNeSt.from_variant("resnest14", **settings).eval()
    classifier = ResNeSt.from_variant("resnest14", dilation_style="classifier", **settings).eval()
    classifier.load_state_dict(plugin.state_dict())
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        assert relative_error(plugin(x)["res5"], classifier(x)["res5"]) > 1e-3
        for name, dilation in zip(("res4", "res5"), dilations, strict=True):
            if dilation > 1:
                block = getattr(plugin, name)[0]
                block.conv2.conv.dilation = block.conv2.conv.padding = (dilation // 2,) * 2
                block.pool_after = nn.AvgPool2d(3, stride=1, padding=1)
        actual, expected = plugin(x), classifier(x)
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


def test_dilated_stages_differ_from_timm_in_the_two_stated_details_only():
    """timm's first block has the dilation before, and pools the shortcut (2x2, stride 1)."""
    ours, references = same_weights(
        "resnest50",
        ["timm"],
        res4_dilation=2,
        res5_dilation=4,
        reference_kwargs={"output_stride": 8},
    )
    timm = references["timm"].eval()
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        for name, layer, dilation in (("res4", timm.layer3, 1), ("res5", timm.layer4, 2)):
            block = getattr(ours, name)[0]
            block.conv2.conv.dilation = block.conv2.conv.padding = (dilation, dilation)
            block.shortcut_pool = layer[0].downsample[0]
        actual, expected = ours.eval()(x), reference_outputs(timm, x)
        for name in expected:
            assert relative_error(actual[name], expected[name]) < 1e-9, name

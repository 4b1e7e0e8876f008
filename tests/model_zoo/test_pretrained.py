"""``ResNeSt.from_variant(name, weights=…)``: the weights arrive whole, or are refused by name."""

import pytest
import torch

from resnest_d2 import ResNeSt
from resnest_d2.checkpoint import convert


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights of the official classifier ResNeSt-14, as they are published."""
    folder = tmp_path_factory.mktemp("weights")
    state = ResNeSt.from_variant("resnest14", num_classes=1000).state_dict()
    for value in state.values():
        if value.is_floating_point():
            torch.nn.init.uniform_(value, 0.5, 1.5)
    torch.save(convert(state, "resnest_d2", "official"), folder / "resnest14-9c8fe254.pth")
    return folder


@pytest.fixture
def published(folder, monkeypatch):
    """``published``: their tensors by our names; they are in the folder of RESNEST_D2_WEIGHTS."""
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(folder))
    tensors = torch.load(folder / "resnest14-9c8fe254.pth", weights_only=True)
    return convert(tensors, "official", "resnest_d2")


@pytest.mark.parametrize("weights", ["resnest14", "resnest://resnest14", "a file"])
def test_published_weights_are_loaded_whole(published, folder, weights):
    weights = str(folder / "resnest14-9c8fe254.pth") if weights == "a file" else weights
    classifier = ResNeSt.from_variant("resnest14", weights=weights, num_classes=1000)
    state = classifier.state_dict()
    assert state.keys() == published.keys()
    assert all(torch.equal(state[name], value) for name, value in published.items())


def test_a_part_of_the_network_is_filled_without_the_rest(published):
    network = ResNeSt.from_variant(
        "resnest14", weights="resnest14", out_features=("res3",), norm="FrozenBN", freeze_at=2
    )
    state = network.state_dict()
    assert "res3.0.conv1.weight" in state and "res4.0.conv1.weight" not in state
    assert all(torch.equal(value, published[name]) for name, value in state.items())


def test_a_classifier_of_other_classes_stays_random(published):
    torch.manual_seed(0)
    expected = ResNeSt.from_variant("resnest14", num_classes=7).linear
    torch.manual_seed(0)
    network = ResNeSt.from_variant("resnest14", weights="resnest14", num_classes=7)
    torch.testing.assert_close(network.linear.weight, expected.weight)
    assert torch.equal(network.res5[0].conv3.weight, published["res5.0.conv3.weight"])


@pytest.mark.parametrize(
    ("variant", "weights", "message"),
    [
        ("resnest26", "resnest14", "weights resnest14 belong to resnest14, .* is resnest26"),
        # tensors of the same shapes, another network
        ("resnest50", "resnest50_fast_2s1x64d", "belong to resnest50_fast_2s1x64d, .* resnest50"),
        (
            "resnest26",
            "a file",
            "resnest14-9c8fe254.pth does not .* file: resnest14 .*: resnest26 ",
        ),
    ],
)
def test_weights_of_another_variant_are_refused_by_name(
    published, folder, variant, weights, message
):
    weights = str(folder / "resnest14-9c8fe254.pth") if weights == "a file" else weights
    with pytest.raises(ValueError, match=message):
        ResNeSt.from_variant(variant, weights=weights)


def test_unknown_weights_name_the_nearest(published):
    with pytest.raises(FileNotFoundError, match="nearest: .*resnest50"):
        ResNeSt.from_variant("resnest50", weights="resnest50_detektron")

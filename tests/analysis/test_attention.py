"""Recorded attention: what the blocks compute, from every way through them, and nothing is left."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectors import image, small_detector

from detectron2.data.detection_utils import read_image

from resnest_d2 import ResNeSt
from resnest_d2.analysis.attention import (
    BlockAttention,
    ClassAttention,
    attention_by_class,
    image_attention,
    record_attention,
    save_attention,
)
from resnest_d2.data import sample_set
from resnest_d2.modeling import SplitAttentionConv2d
from resnest_d2.modeling.checkpointing import checkpoint_stages, recompute_norms

RADIX_AND_CARDINALITY = [(r, k) for r in (1, 2, 4) for k in (1, 2)]


def _slow_weights(module: SplitAttentionConv2d, splits: torch.Tensor) -> torch.Tensor:
    """(N, R, C), one number at a time, from splits (N, R, C, h, w)."""
    z = F.relu(module.bn1(module.fc1(splits.sum(dim=1).mean(dim=(2, 3), keepdim=True))))[..., 0, 0]
    radix, cardinality = module.radix, module.num_groups
    channels, inner = splits.shape[2] // cardinality, z.shape[1] // cardinality
    weights = torch.zeros(splits.shape[:3])
    for n in range(len(splits)):
        for k in range(cardinality):
            part = z[n, k * inner : (k + 1) * inner]
            for c in range(channels):
                rows = [(k * radix + r) * channels + c for r in range(radix)]
                logits = [
                    float(module.fc2.weight[i, :, 0, 0] @ part + module.fc2.bias[i]) for i in rows
                ]
                powers = [math.exp(logit) for logit in logits]
                rest = 1 if radix == 1 else 0  # a sigmoid is a softmax with a logit of zero
                for r in range(radix):
                    weights[n, r, k * channels + c] = powers[r] / (sum(powers) + rest)
    return weights


@pytest.mark.parametrize("radix, cardinality", RADIX_AND_CARDINALITY)
def test_weights_and_maps_are_those_of_a_slow_loop(radix, cardinality):
    module = SplitAttentionConv2d(16, 16, radix=radix, num_groups=cardinality).eval()
    torch.nn.init.normal_(module.fc2.weight)
    x = torch.randn(2, 16, 7, 6)
    with torch.no_grad(), record_attention(module, maps=[""]) as blocks:
        out = module(x)
        splits = F.relu(module.bn0(module.conv(x))).view(2, radix, 16, 7, 6)
        weights = _slow_weights(module, splits)
    (block,) = blocks.values()
    assert block.weights.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(block.weights), weights)
    torch.testing.assert_close(torch.from_numpy(block.splits), splits)
    torch.testing.assert_close(torch.from_numpy(block.fused), out)
    if radix > 1:
        np.testing.assert_allclose(block.weights.sum(axis=1), 1, rtol=1e-6)
    else:
        assert ((block.weights > 0) & (block.weights < 1)).all()
    assert np.ptp(block.weights) > 0.3


@pytest.mark.parametrize("radix", [1, 2, 3, 4])
def test_a_block_without_preference_has_selectivity_zero(radix):
    module = SplitAttentionConv2d(24, 24, radix=radix).eval()
    torch.nn.init.zeros_(module.fc2.weight)
    torch.nn.init.zeros_(module.fc2.bias)
    with torch.no_grad(), record_attention(module) as blocks:
        module(torch.randn(1, 24, 5, 5))
    (block,) = blocks.values()
    np.testing.assert_allclose(block.weights, 1 / max(radix, 2), rtol=1e-6)
    np.testing.assert_allclose(block.selectivity, 0, atol=1e-6)


def test_selectivity_is_linear_in_the_largest_weight():
    two = BlockAttention(np.float32([[[0.5, 0.75, 0.0], [0.5, 0.25, 1.0]]]))
    np.testing.assert_allclose(two.selectivity, [[0, 0.5, 1]])
    four = BlockAttention(np.float32([[[0.25, 1.0], [0.25, 0.0], [0.25, 0.0], [0.25, 0.0]]]))
    np.testing.assert_allclose(four.selectivity, [[0, 1]])
    gate = BlockAttention(np.float32([[[0.5, 0.0, 1.0, 0.25]]]))
    np.testing.assert_allclose(gate.selectivity, [[0, 1, 1, 0.5]])


def _network(**kwargs) -> ResNeSt:
    torch.manual_seed(1)
    size = {"stem_width": 8, "width_per_group": 16, "res2_out_channels": 16}
    return ResNeSt.from_variant("resnest26", **size, **kwargs)


@pytest.mark.parametrize("deform_on_per_stage", [(False,) * 4, (False, True, True, True)])
def test_every_way_through_a_block_is_recorded(deform_on_per_stage):
    x = torch.randn(2, 3, 64, 64)
    recorded = []
    for change in (
        lambda model: None,
        recompute_norms,
        lambda model: checkpoint_stages(model, ["res3", "res4"]),
    ):
        model = _network(deform_on_per_stage=deform_on_per_stage).train()
        change(model)
        with record_attention(model, maps=["res3.1"]) as blocks:
            out = model(x)
            out["res5"].sum().backward()  # which runs blocks again
        recorded.append(blocks)
        assert list(blocks) == [f"res{stage}.{i}" for stage in (2, 3, 4, 5) for i in (0, 1)]
        assert [name for name, block in blocks.items() if block.splits is not None] == ["res3.1"]
    for blocks in recorded[1:]:
        for name, block in blocks.items():
            np.testing.assert_allclose(block.weights, recorded[0][name].weights, rtol=1e-5)
        np.testing.assert_allclose(
            blocks["res3.1"].splits, recorded[0]["res3.1"].splits, rtol=1e-4, atol=1e-5
        )


def test_recording_changes_no_output_and_leaves_nothing_behind():
    model = small_detector("mask")
    inputs = [image()]
    keys = list(model.state_dict())

    def run():
        with torch.no_grad():
            return model(inputs)[0]["instances"].get_fields()

    before = run()
    with record_attention(model, maps=["res2.0"]) as blocks:
        during = run()
    assert len(blocks) == 4
    for name in ("scores", "pred_classes", "pred_masks"):
        assert torch.equal(before[name], during[name])
    with pytest.raises(RuntimeError, match="stop"), record_attention(model, maps=["res2.0"]):
        raise RuntimeError("stop")
    assert list(model.state_dict()) == keys
    assert not any(module._forward_hooks for module in model.modules())


def test_blocks_of_equal_names_have_their_whole_paths():
    pair = torch.nn.ModuleList([_network(), _network()]).eval()
    with torch.no_grad(), record_attention(pair) as blocks:
        pair[1](torch.randn(1, 3, 64, 64))
    assert list(blocks)[0] == "1.res2.0.conv2"


def test_an_unknown_block_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="'res4.0', 'res4.1'.*got 'res4.2'"):
        with record_attention(_network(), maps=["res4.2"]):
            pass


def test_archive_has_weights_of_all_blocks_and_maps_of_one(tmp_path):
    blocks = image_attention(small_detector("faster"), image(), maps=["res4.0"])
    save_attention(blocks, tmp_path / "attention.npz")
    arrays = dict(np.load(tmp_path / "attention.npz"))
    assert arrays.pop("blocks").tolist() == ["res2.0", "res3.0", "res4.0", "res5.0"]
    assert list(arrays) == [*(f"{name}.weights" for name in blocks), "res4.0.splits"]
    np.testing.assert_array_equal(arrays["res4.0.splits"], blocks["res4.0"].splits)
    assert arrays["res4.0.splits"].shape == (1, 2, 64, 12, 16)  # before the pool, at stride 8


def test_class_means_are_those_of_a_loop():
    random = np.random.default_rng(0)
    weights = random.random((7, 2, 5)).astype(np.float32)
    holds = random.random((7, 3)) < 0.5
    holds[:, 2] = False
    attention = ClassAttention(["a", "b", "c"], holds, {"res2.0": weights})
    for k in range(2):
        own = np.mean([weights[n] for n in range(7) if holds[n, k]], axis=0)
        np.testing.assert_allclose(attention.mean("res2.0")[k], own, rtol=1e-6)
        expected = abs(own - weights.mean(axis=0)).mean()
        np.testing.assert_allclose(attention.deviation("res2.0")[k], expected, rtol=1e-5)
    for values in (attention.mean, attention.deviation, attention.chance):
        assert np.isnan(values("res2.0")[2]).all()  # no image holds it


def test_chance_is_the_deviation_of_images_drawn_at_random():
    random = np.random.default_rng(0)
    weights = random.random((40, 2, 30)).astype(np.float32)
    drawn = []
    for _ in range(200):
        holds = np.zeros((40, 1), dtype=bool)
        holds[random.choice(40, 10, replace=False)] = True
        attention = ClassAttention(["a"], holds, {"res2.0": weights})
        drawn.append(attention.deviation("res2.0")[0])
    np.testing.assert_allclose(attention.chance("res2.0"), np.mean(drawn), rtol=0.03)
    everything = ClassAttention(["a"], np.ones((40, 1), dtype=bool), {"res2.0": weights})
    np.testing.assert_allclose(everything.chance("res2.0"), 0)


class _Predictor:
    """As much of one as recording takes."""

    segments = classifies = False

    def __init__(self):
        self.model = small_detector("faster")

    def preprocess(self, file):
        pixels = read_image(file, format="RGB")
        return {"image": torch.from_numpy(pixels.transpose(2, 0, 1).copy())}


def test_attention_by_class_has_every_image_with_its_classes(tmp_path):
    data = sample_set(tmp_path, image_size=64, train_images=2, val_images=4)["val"]
    predictor = _Predictor()
    attention = attention_by_class(predictor, data)
    content = json.loads(Path(data[0]).read_text())
    assert attention.class_names == [c["name"] for c in content["categories"]]
    expected = set()
    for record in content["images"]:
        inputs = predictor.preprocess(f"{data[1]}/{record['file_name']}")
        weights = image_attention(predictor.model, inputs)["res3.0"].weights[0]
        names = {a["category_id"] for a in content["annotations"] if a["image_id"] == record["id"]}
        expected.add((weights.tobytes(), tuple(c["id"] in names for c in content["categories"])))
    own = zip(attention.weights["res3.0"], attention.holds, strict=True)
    assert {(weights.tobytes(), tuple(holds)) for weights, holds in own} == expected
    assert len(expected) == 4
    with pytest.raises(ValueError, match="2 images or more, got num_images 1"):
        attention_by_class(predictor, data, num_images=1)

"""Pictures of attention and saliency: what they show are the arrays' numbers."""

import json
import sys

import numpy as np
import pytest
from detectors import save_detector
from PIL import Image

from resnest_d2.analysis.attention import BlockAttention, ClassAttention
from resnest_d2.analysis.saliency import Saliency
from resnest_d2.data import sample_set
from resnest_d2.draw import explanations
from resnest_d2.draw.explanations import (
    plot_attention,
    plot_block,
    plot_class_attention,
    plot_saliency,
)
from resnest_d2_command import main

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
BINS = np.linspace(0, 1, 24)


def _weights(radix: int, channels: int = 40) -> np.ndarray:
    powers = np.exp(np.random.default_rng(radix).normal(size=(1, max(radix, 2), channels)))
    return (powers / powers.sum(axis=1))[:, :radix].astype(np.float32)


def _block(radix: int, channels: int = 40) -> BlockAttention:
    splits = np.random.default_rng(1).random((1, radix, channels, 6, 8), np.float32)
    return BlockAttention(_weights(radix, channels), splits)


def _titles(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


@pytest.mark.parametrize("radix", [1, 2, 4])
def test_overview_has_the_distribution_and_the_selectivity_of_every_block(radix, tmp_path):
    names = [f"res{stage}.{i}" for stage in (2, 3, 4, 5) for i in range(3)]
    blocks = {name: BlockAttention(_weights(radix, 30 + i)) for i, name in enumerate(names)}
    figure = plot_attention(blocks, IMAGE, tmp_path / "a.png", note="mine.jpg")
    heats = [axes.collections[0] for axes in figure.axes if axes.get_ylabel() == "weight"]
    assert len(heats) == {1: 1, 2: 1, 4: 4}[radix]
    for split, heat in enumerate(heats):
        for column, block in enumerate(blocks.values()):
            counts, _ = np.histogram(block.weights[0, split], BINS)
            shown = heat.get_array()[:, column]
            np.testing.assert_allclose(shown, 100 * counts / counts.sum())
    (bars,) = [axes for axes in figure.axes if axes.get_ylabel() == "selectivity"]
    heights = [bar.get_height() for bar in bars.patches]
    np.testing.assert_allclose(heights, [b.selectivity.mean() for b in blocks.values()])
    assert [label.get_text() for label in bars.get_xticklabels()] == names
    first = {1: "Gate of each channel", 2: "Weight of split 1 of 2", 4: "Weight of split 1 of 4"}
    assert any(title.startswith(first[radix]) for title in _titles(figure))
    assert figure.get_supxlabel() == "mine.jpg"
    size = tuple((120 * figure.get_size_inches()).round().astype(int))
    assert Image.open(tmp_path / "a.png").size == size


@pytest.mark.parametrize("radix", [1, 2, 3, 4])
def test_a_constant_gate_is_one_cell_and_one_bar(radix, tmp_path):
    equal = np.float32(1 / max(radix, 2))
    weights = np.full((1, radix, 40), equal)
    weights[0, 0, ::2] = np.nextafter(equal, np.float32(1))  # rounding
    block = BlockAttention(weights, _block(radix).splits)
    overview = plot_attention({"res2.0": block}, IMAGE, tmp_path / "a.png", note="")
    (heat, *_) = [axes.collections[0] for axes in overview.axes if axes.get_ylabel() == "weight"]
    assert sorted(heat.get_array().ravel())[-2:] == [0, 100]
    (bars,) = [axes for axes in overview.axes if axes.get_ylabel() == "selectivity"]
    assert bars.patches[0].get_height() < 1e-6
    if radix <= 2:
        picture = tmp_path / "b.png"
        detail = plot_block("res2.0", block, IMAGE, picture, covered=(48, 64), note="")
        (histogram,) = [axes for axes in detail.axes if axes.get_xlabel() == "weight"]
        assert sorted(bar.get_height() for bar in histogram.patches)[-2:] == [0, 40]


def test_a_block_has_its_histogram_and_the_maps_of_its_extreme_channels(tmp_path):
    block = _block(2)
    silent = int(block.selectivity.argmax())
    block.splits[0, :, silent] = 0
    figure = plot_block("res4.1", block, IMAGE, tmp_path / "b.png", covered=(64, 64), note="")
    (histogram,) = [axes for axes in figure.axes if axes.get_xlabel() == "weight"]
    counts, _ = np.histogram(block.weights[0, 0], BINS)
    assert [bar.get_height() for bar in histogram.patches] == counts.tolist()

    order = [c for c in np.argsort(-block.selectivity[0]) if c != silent]
    rows = [axes for axes in figure.axes if axes.get_ylabel().startswith("channel ")]
    assert [row.get_ylabel() for row in rows] == [
        f"channel {c}" for c in (*order[:3], *order[::-1][:3])
    ]
    start = figure.axes.index(rows[0])
    for axes, values, title in zip(
        figure.axes[start : start + 3],
        [*block.splits[0, :, order[0]], block.fused[0, order[0]]],
        [*(f"split {r + 1}: {block.weights[0, r, order[0]]:.2f}" for r in (0, 1)), "fused"],
        strict=True,
    ):
        np.testing.assert_array_equal(axes.images[0].get_array(), values)
        assert axes.get_title(loc="left") == title
        assert axes.images[0].get_extent() == [0, 64, 64, 0]  # with the padding
        assert (axes.get_xlim(), axes.get_ylim()) == ((0, 64), (48, 0))  # without
    assert figure.get_suptitle() == "Split attention in res4.1"


def test_classes_are_compared_with_chance_and_with_all_images(tmp_path):
    random = np.random.default_rng(0)
    holds = random.random((20, 4)) < 0.5
    holds[:, 2], holds[:, 3] = False, True  # nothing to compare
    weights = {name: random.random((20, 2, 30)).astype(np.float32) for name in ("res2.0", "res3.0")}
    attention = ClassAttention(["a", "b", "c", "d"], holds, weights)
    figure = plot_class_attention(attention, tmp_path / "c.png", block="res3.0", note="")
    upper, lower = figure.axes[:2]
    shown = np.ma.filled(upper.images[0].get_array(), np.nan)
    for column, block in enumerate(weights):
        expected = attention.deviation(block)[:2] / attention.chance(block)[:2]
        np.testing.assert_allclose(shown[:2, column], expected)
    assert np.isnan(shown[2:]).all()
    assert [label.get_text() for label in upper.get_yticklabels()] == [
        f"{name} ({count})" for name, count in zip("abcd", holds.sum(axis=0), strict=True)
    ]
    channels = [int(label.get_text()) for label in lower.get_xticklabels()]
    assert len(channels) == 24 and channels == sorted(channels)
    own = weights["res3.0"][holds[:, 1]].mean(axis=0) - weights["res3.0"].mean(axis=0)
    np.testing.assert_allclose(lower.images[0].get_array()[1], 100 * own[0, channels], atol=1e-4)
    assert Image.open(tmp_path / "c.png").width == 1080


def test_saliency_has_the_box_and_smooth_parts_of_the_same_sum(tmp_path):
    attribution = np.zeros((48, 64), np.float32)
    attribution[20, 30], attribution[22, 34] = 0.75, -0.25
    result = Saliency(attribution, np.float32([20, 10, 40, 30]), 0, score=0.9, baseline=0.4)
    figure = plot_saliency(result, IMAGE, "cow", tmp_path / "s.png", note="mine.jpg")
    assert figure.get_suptitle() == 'What the score of "cow" rests on'
    assert "add up to 0.50; exact would be 0.50" in figure.get_supxlabel().replace("\n", " ")
    whole, overlay, near = figure.axes[:3]
    for axes in (whole, overlay, near):
        assert axes.patches[0].get_bbox().extents.tolist() == [20, 10, 40, 30]
    parts = overlay.images[1].get_array()
    assert parts.sum() == pytest.approx(50, rel=1e-4)  # %
    assert np.unravel_index(parts.argmax(), parts.shape) == (20, 30)
    assert np.unravel_index(parts.argmin(), parts.shape) == (22, 34)
    assert (near.get_xlim(), near.get_ylim()) == ((15, 45), (35, 5))
    np.testing.assert_array_equal(whole.images[0].get_array(), IMAGE)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(IMAGE).save(file)
    return str(file)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    opts = ("INPUT.MIN_SIZE_TEST", "48", "INPUT.FORMAT", "BGR")
    return str(save_detector(tmp_path_factory.mktemp("model") / "model.pth", "faster", *opts))


def _explain(picture, checkpoint, folder, *more) -> int:
    options = ["--checkpoint", checkpoint, "--out", str(folder), "--device", "cpu"]
    return main(["explain", picture, *options, *more])


def test_command_writes_pictures_and_arrays_and_says_what_they_show(
    picture, checkpoint, tmp_path, capsys
):
    data = sample_set(tmp_path / "data", image_size=64, train_images=2, val_images=3)["val"]
    more = ["--score-threshold", "0", "--detection", "1", "--block", "res3.0", "--json"]
    assert _explain(picture, checkpoint, tmp_path / "out", *more, "--data", *data) == 0
    record = json.loads(capsys.readouterr().out)
    names = ["overview.png", "res3.0.png", "by_class.png", "by_class.npz"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("attention.npz", "saliency_1.png", "saliency_1.npz"),
        *(f"attention_{name}" for name in names),
    }
    assert sorted(record["files"]) == sorted(map(str, (tmp_path / "out").iterdir()))
    attention = np.load(tmp_path / "out" / "attention.npz")
    for name, value in record["selectivity"].items():
        own = BlockAttention(attention[f"{name}.weights"])
        assert value == pytest.approx(own.selectivity.mean())
    by_class = np.load(tmp_path / "out" / "attention_by_class.npz")
    assert by_class["res3.0.mean"].shape == (5, 2, 32)
    saliency = np.load(tmp_path / "out" / "saliency_1.npz")
    detection = record["detections"][1]
    assert saliency["score"] == pytest.approx(detection["score"], rel=1e-4)
    assert ["ant", "bee", "cow"][saliency["label"]] == detection["class"]
    assert saliency["attribution"].shape == IMAGE.shape[:2]


def test_the_picture_is_shown_in_its_own_colours(picture, checkpoint, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        explanations, "plot_attention", lambda _, image, *args, **kw: shown.append(image)
    )
    assert _explain(picture, checkpoint, tmp_path, "--score-threshold", "1") == 0
    np.testing.assert_array_equal(shown[0], IMAGE)


def test_without_detections_the_most_selective_block_is_shown_alone(
    picture, checkpoint, tmp_path, capsys
):
    assert _explain(picture, checkpoint, tmp_path, "--score-threshold", "1") == 0
    text = capsys.readouterr().out
    assert "no detection scores more than 1.0" in text
    attention = np.load(tmp_path / "attention.npz")
    most = max(
        attention["blocks"],
        key=lambda name: BlockAttention(attention[f"{name}.weights"]).selectivity.mean(),
    )
    assert (tmp_path / f"attention_{most}.png").is_file()
    assert not list(tmp_path.glob("saliency*"))


def test_a_resnet_has_saliency_and_no_attention(picture, tmp_path, capsys):
    opts = ("MODEL.RESNETS.RADIX", "0", "INPUT.MIN_SIZE_TEST", "48")
    checkpoint = str(save_detector(tmp_path / "model.pth", "faster", *opts))
    more = ["--score-threshold", "0"]
    assert _explain(picture, checkpoint, tmp_path / "out", *more) == 0
    assert "the network has no split attention" in capsys.readouterr().out
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["saliency_0.npz", "saliency_0.png"]
    assert _explain(picture, checkpoint, tmp_path / "more", *more, "--block", "res3.0") == 2
    assert "--block" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--block", "res3.7"], "block must be one of ('res2.0', 'res3.0', 'res4.0', 'res5.0')"),
        (["--detection", "0", "--score-threshold", "1"], "--detection must be a number below 0"),
        (["--data", "no.json", "."], "no.json"),
    ],
)
def test_refused_input_exits_with_2_and_writes_nothing(
    more, message, picture, checkpoint, tmp_path, capsys
):
    assert _explain(picture, checkpoint, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_captum_the_command_names_the_extra(
    picture, checkpoint, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert _explain(picture, checkpoint, tmp_path / "out") == 2
    assert "pip install 'resnest-d2[explain]'" in capsys.readouterr().err

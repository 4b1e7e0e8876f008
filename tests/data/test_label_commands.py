"""``resnest-d2 data check``, ``stats`` and ``show`` for label maps."""

import json
from pathlib import Path

import numpy as np
import pytest
from label_sets import CLASSES, write_label_set
from PIL import Image

from resnest_d2.draw.class_colors import class_colors
from resnest_d2_command import main


@pytest.fixture
def data(tmp_path):
    return write_label_set(tmp_path / "data", train=5, val=2)


def _arguments(data: dict, *splits: str) -> list[str]:
    options = ["--classes", str(data["classes"])]
    for split in splits or ("train",):
        options += [f"--{split}-labels", data[split][0], f"--{split}-images", data[split][1]]
    return options


def _labels(data: dict) -> np.ndarray:
    return np.stack([np.array(Image.open(f)) for f in sorted(Path(data["train"][0]).iterdir())])


def test_check_prints_what_a_run_refuses(data, capsys):
    assert main(["data", "check", *_arguments(data, "train", "val"), "--quiet"]) == 0
    for split in ("train", "val"):
        file = Path(data[split][0], "000001.png")
        Image.fromarray(np.full((64, 64), 9, np.uint8)).save(file)
    assert main(["data", "check", *_arguments(data, "train", "val"), "--json"]) == 1
    captured = capsys.readouterr()
    problems = json.loads(captured.out[captured.out.index("{") :])["problems"]
    found = [(p["file"], p["severity"]) for p in problems if p["kind"] == "label-value"]
    expected = [str(Path(data[split][0], "000001.png")) for split in ("train", "val")]
    assert found == [(file, "error") for file in expected]
    assert main(["data", "check", *_arguments(data), "--ignore-value", "9"]) == 1
    assert "255" in capsys.readouterr().out  # is no class, then


def test_stats_count_pixels_and_images_of_each_class(data, capsys):
    assert main(["data", "stats", *_arguments(data), "--json"]) == 0
    found, labels = json.loads(capsys.readouterr().out), _labels(data)
    assert (found["images"], found["unlabelled"]) == (5, int((labels == 255).sum()))
    assert found["image_sizes"] == {"width": [64] * 3, "height": [64] * 3}
    for number, own in enumerate(found["classes"]):
        here = labels == number
        assert own["name"] == CLASSES[number]
        assert (own["pixels"], own["images"]) == (here.sum(), here.any(axis=(1, 2)).sum())
        assert own["share"] == pytest.approx(here.sum() / (labels != 255).sum())
    assert main(["data", "stats", *_arguments(data)]) == 0
    text = capsys.readouterr().out
    assert f"{(labels == 0).sum():,}" in text and "without a class" in text


def test_the_sheet_has_the_images_in_the_colours_of_their_classes(data, tmp_path, capsys):
    out = tmp_path / "sheets" / "sheet.png"
    options = ["--out", str(out), "--num", "1", "--seed", "3"]
    assert main(["data", "show", *_arguments(data), *options]) == 0
    sheet = np.asarray(Image.open(out)).astype(int)
    name = capsys.readouterr()  # one of five images, 420 x 420 pixels at (8, 8)
    assert name.out.startswith(f"{out}: 436 x ")
    drawn = sheet[8:428, 8:428]
    matches = []
    for labels, file in zip(_labels(data), sorted(Path(data["train"][1]).iterdir()), strict=True):
        image = np.array(Image.open(file).convert("RGB")).astype(float)
        colors = np.zeros((256, 3))
        colors[: len(CLASSES)] = class_colors(len(CLASSES))
        blended = np.rint(0.45 * image + 0.55 * colors[labels])
        at = np.minimum(((np.arange(420) + 0.5) * 64 / 420).astype(int), 63)
        differs = (abs(drawn - blended[at][:, at]) > 1).any(axis=2)
        matches.append(differs.mean() < 0.02)  # rounding at edges
    assert sum(matches) == 1
    legend = sheet[460:]  # has the colour of each class that is there
    present = np.unique(_labels(data)[matches.index(True)])
    for number, color in enumerate(class_colors(len(CLASSES))):
        assert (legend == color).all(axis=2).any() == (number in present)


@pytest.mark.parametrize("command", ["check", "stats", "show"])
def test_label_maps_and_classes_belong_together(command, data, tmp_path, capsys):
    more = ["--out", str(tmp_path / "sheet.png")] if command == "show" else []
    without = [word for word in _arguments(data) if word not in ("--classes", str(data["classes"]))]
    alone = ["--classes", str(data["classes"])]
    for arguments, message in ((without, "give --classes FILE"), (alone, "--classes is for label")):
        assert main(["data", command, *arguments, *more]) == 2
        assert message in capsys.readouterr().err
    assert main(["data", command, *_arguments(data), *more, "--ignore-value", "3"]) == 2
    assert "must be no class number" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["stats", "show"])
def test_label_maps_with_errors_are_refused_or_left_out(command, data, tmp_path, capsys):
    Path(data["train"][0], "000002.png").unlink()
    out = tmp_path / "sheet.png"
    more = ["--out", str(out)] if command == "show" else ["--json"]
    assert main(["data", command, *_arguments(data), *more]) == 2
    assert "000002.png: missing-label" in capsys.readouterr().err and not out.exists()
    assert main(["data", command, *_arguments(data), *more, "--on-bad-data", "skip"]) == 0
    if command == "stats":
        assert json.loads(capsys.readouterr().out)["images"] == 4
    assert main(["data", command, *_arguments(data, "train", "val"), *more]) == 2
    assert "one data set is" in capsys.readouterr().err

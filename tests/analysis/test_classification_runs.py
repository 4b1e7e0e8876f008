"""Runs of classifiers: read, compared with a slow bootstrap, reported, and refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from class_sets import CLASSES, evaluate_classes, write_class_set
from label_sets import evaluate_labels, write_label_set

from resnest_d2.analysis import ClassificationRun, compare_runs, read_evaluated_run
from resnest_d2_command import main

WRONG = {"good_1": 4, "good_2": 5, "bad_1": 15, "bad_2": 14}  # of 30 images


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_class_set(tmp_path_factory.mktemp("data"), train=1, val=10)["val"]


@pytest.fixture(scope="module")
def folders(root, tmp_path_factory):
    """Runs by name, with their metrics: two seeds of a good model, two of a bad one."""
    runs, found = tmp_path_factory.mktemp("runs"), {}
    for name, wrong, seed in (
        ("good_1", 4, 1),
        ("good_2", 5, 2),
        ("bad_1", 15, 3),
        ("bad_2", 14, 4),
    ):
        found[name] = (
            runs / name,
            evaluate_classes(runs / name, root, wrong, "SEED", seed, seed=seed),
        )
    return found


@pytest.fixture(scope="module")
def runs(folders):
    return {name: read_evaluated_run(folder) for name, (folder, _) in folders.items()}


def test_a_run_has_the_metrics_of_its_evaluation(folders, runs):
    for name, wrong in (("good_1", 4), ("bad_1", 15)):
        run, metrics = runs[name], folders[name][1]
        assert isinstance(run, ClassificationRun) and run.class_names == CLASSES
        assert (run.num_images, run.image_size) == (30, (40, 60))
        assert metrics["top1"] == pytest.approx(100 * (30 - wrong) / 30)
        values = run.weighted_metrics("classification", np.ones((1, 30)))
        assert values.overall[:, 0] == pytest.approx([metrics["top1"], metrics["class_mean"]])
        by_class = [metrics[f"top1-{name}"] for name in CLASSES]
        assert values.classes[:, 0] == pytest.approx(by_class)


def test_an_interval_is_that_of_a_slow_bootstrap(runs):
    compared = compare_runs([runs["bad_1"]], [runs["good_1"]], resamples=60, seed=3)
    draws = np.random.default_rng(3).multinomial(30, [1 / 30] * 30, size=60)
    right = {}
    for name in ("bad_1", "good_1"):
        found = json.loads(runs[name].predictions.read_text(encoding="utf-8"))
        right[name] = np.array([own["classes"][0] == own["label"] for own in found])
    gains = [100 * (t * (1.0 * right["good_1"] - right["bad_1"])).sum() / 30 for t in draws]
    low, high = np.percentile(gains, [2.5, 97.5])
    gain = compared.tasks["classification"].metrics["top1"]
    assert gain.gain == pytest.approx(100 * 11 / 30)
    assert (gain.low, gain.high) == (pytest.approx(low), pytest.approx(high))


def test_compare_and_report_are_written(folders, tmp_path, capsys):
    parent = folders["good_1"][0].parent
    sides = [str(parent / "bad_*"), str(parent / "good_*")]
    assert main(["compare", *sides, "--out", str(tmp_path / "compared"), "--no-cost"]) == 0
    printed = capsys.readouterr().out
    assert "Classes of images" in printed and "top1" in printed
    record = json.loads((tmp_path / "compared" / "comparison.json").read_text(encoding="utf-8"))
    assert record["tasks"]["classification"]["metrics"]["top1"]["low"] > 0
    page = tmp_path / "report.html"
    assert main(["report", *sides, "--out", str(page), "--num-images", "2"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "whose most likely class is the right one" in text
    assert text.count('<figure class="scene">') == 1 and text.count("class: ") == 4  # and "alt"


def test_the_worst_image_is_the_most_confident_mistake(folders, runs, tmp_path):
    page = tmp_path / "report.html"
    folder = str(folders["bad_1"][0])
    assert main(["report", folder, "--out", str(page), "--num-images", "1"]) == 0
    wrong = [
        (own["probabilities"][0], own["file_name"])
        for own in json.loads(runs["bad_1"].predictions.read_text(encoding="utf-8"))
        if own["classes"][0] != own["label"]
    ]
    assert f"<strong>{max(wrong)[1]}</strong>" in page.read_text(encoding="utf-8")


def test_other_images_and_other_tasks_are_refused(folders, tmp_path, capsys):
    other = write_class_set(tmp_path / "data", train=1, val=9)["val"]
    evaluate_classes(tmp_path / "other", other, 3)
    good = str(folders["good_1"][0])
    assert main(["compare", good, str(tmp_path / "other"), "--no-cost"]) == 2
    assert "images" in capsys.readouterr().err
    labels = write_label_set(tmp_path / "labels", val=2)["val"]
    evaluate_labels(tmp_path / "segments", labels, 1)
    assert main(["compare", good, str(tmp_path / "segments"), "--no-cost"]) == 2
    assert "have no task in common" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "{}", '[{"classes": [7], "probabilities": [1]}]', "["])
def test_wrong_predictions_leave_the_images_out(content, folders, tmp_path, caplog):
    shutil.copytree(folders["good_1"][0], tmp_path / "run")
    file = Path(tmp_path / "run" / "inference" / "classification_predictions.json")
    file.write_text(content, encoding="utf-8")
    page = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "run"), "--out", str(page)]) == 0
    assert "classification_predictions.json" in caplog.text
    assert '<figure class="scene">' not in page.read_text(encoding="utf-8")

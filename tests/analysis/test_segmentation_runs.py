"""Runs of segmentors: read, compared with a slow bootstrap, and refused where data differ."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluated_runs import write_data, write_run
from hotcoco.semantic import SemanticEval
from label_sets import CLASSES, evaluate_labels, write_label_set
from PIL import Image

from resnest_d2.analysis import SegmentationRun, compare_runs, read_evaluated_run
from resnest_d2.analysis.analysed_runs import study_runs
from resnest_d2.evaluation.image_confusions import IMAGE_CONFUSIONS, SEGMENTATION_METRICS
from resnest_d2.evaluation.sem_seg_evaluator import PREDICTIONS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_label_set(tmp_path_factory.mktemp("data"), val=8)["val"]


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory):
    """Runs by name, with their metrics: two seeds of a good model, two of a bad one, the truth."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for name, blocks, seed in (
        ("good_1", 1, 1),
        ("good_2", 1, 2),
        ("bad_1", 6, 3),
        ("bad_2", 6, 4),
        ("truth", 0, 5),
    ):
        metrics = evaluate_labels(root / name, data, blocks, "SEED", str(seed), seed=seed)
        found[name] = root / name, metrics
    return found


@pytest.fixture(scope="module")
def runs(folders):
    return {name: read_evaluated_run(folder) for name, (folder, _) in folders.items()}


def test_a_run_has_the_metrics_of_its_evaluation(folders, runs):
    for name, (_, metrics) in folders.items():
        run = runs[name]
        assert isinstance(run, SegmentationRun) and run.class_names == CLASSES
        assert (run.num_images, run.image_size) == (8, (64, 64))
        (values,) = study_runs([run]).metrics
        assert values == {key: pytest.approx(metrics[key]) for key in SEGMENTATION_METRICS}
        assert (values["mIoU"] == pytest.approx(100)) is (name == "truth")


def test_an_interval_is_that_of_a_slow_bootstrap(runs):
    sides = runs["good_1"], runs["bad_1"]
    compared = compare_runs(sides[:1], sides[1:], resamples=60, seed=3).tasks["sem_seg"]
    draws = np.random.default_rng(3).multinomial(8, [1 / 8] * 8, size=60)
    predicted = [run.predicted_labels(range(8)) for run in sides]
    truths = [
        np.array(Image.open(runs["good_1"].label_root / file))
        for file in runs["good_1"].confusions.labels
    ]
    gains = []
    for times in (np.ones(8, int), *draws):
        values = []
        for own in predicted:
            evaluation = SemanticEval(len(CLASSES))
            for image, number in enumerate(times):
                for _ in range(number):
                    evaluation.update(truths[image], own[image].astype(np.uint8))
            found = evaluation.results()
            # Where a class is predicted and never true, only this implementation counts it.
            ious = [c["IoU"] if c["gt_area"] else np.nan for c in found["per_class"]]
            values.append(100 * np.array([np.nanmean(ious), found["aAcc"], *ious]))
        gains.append(values[1] - values[0])
    names = ("mIoU", "pACC", *CLASSES)
    low, high = np.nanpercentile(gains[1:], [2.5, 97.5], axis=0)
    for name, *expected in zip(names, gains[0], low, high, strict=True):
        gain = (compared.metrics | compared.classes)[name]
        np.testing.assert_allclose([gain.gain, gain.low, gain.high], expected, atol=1e-7)
    assert compared.metrics["mIoU"].is_clear and compared.metrics["mIoU"].gain < -10


def test_several_runs_a_side_are_averaged_and_widen_the_interval(runs, folders):
    good, bad = ([runs[f"{name}_{n}"] for n in (1, 2)] for name in ("good", "bad"))
    several = compare_runs(good, bad, resamples=200).tasks["sem_seg"]
    assert several.baseline_values == pytest.approx(
        tuple(folders[f"good_{n}"][1]["mIoU"] for n in (1, 2))
    )
    miou = several.metrics["mIoU"]
    assert miou.other == pytest.approx(np.mean(several.other_values))
    alone = compare_runs(good[:1], bad[:1], resamples=200).tasks["sem_seg"].metrics["mIoU"]
    assert miou.is_clear and miou.high - miou.low > alone.high - alone.low
    equal = compare_runs(good, good, resamples=40).tasks["sem_seg"].metrics["mIoU"]
    assert (equal.gain, equal.low < 0 < equal.high) == (0, True)


def _less_images(root: Path):
    for folder in ("labels", "images"):
        (root / folder / "000008.png").unlink()


def _other_labels(root: Path):
    labels = np.array(Image.open(root / "labels" / "000003.png"))
    labels[40:, :5] = 4
    Image.fromarray(labels).save(root / "labels" / "000003.png")


@pytest.mark.parametrize(
    ("change", "names", "named"),
    [
        (_less_images, CLASSES, "images 000008.png"),
        (_other_labels, CLASSES, "classes in images 000003.png"),
        (lambda root: None, (*CLASSES[:5], "circle"), "classes 5"),
    ],
    ids=["images", "labels", "names"],
)
def test_different_data_is_refused(data, runs, change, names, named, tmp_path):
    for source, name in zip(data, ("labels", "images"), strict=True):
        shutil.copytree(source, tmp_path / name)
    change(tmp_path)
    folders = str(tmp_path / "labels"), str(tmp_path / "images")
    evaluate_labels(tmp_path / "run", folders, 1, names=names)
    other = read_evaluated_run(tmp_path / "run")
    with pytest.raises(
        ValueError, match=f"different data: {named}.* of {data[0]} and {folders[0]}"
    ):
        compare_runs([runs["good_1"]], [other])


def test_a_copy_of_the_data_is_the_same(data, runs, tmp_path):
    shutil.copytree(Path(data[0]).parent, tmp_path / "val")
    folders = str(tmp_path / "val" / "labels"), str(tmp_path / "val" / "images")
    evaluate_labels(tmp_path / "run", folders, 1, seed=1)
    other = read_evaluated_run(tmp_path / "run")
    found = compare_runs([runs["good_1"]], [other], resamples=40).tasks["sem_seg"]
    assert (found.metrics["mIoU"].gain, found.metrics["mIoU"].low) == (0, 0)


def test_a_detector_is_not_compared_with_a_segmentor(runs, tmp_path):
    results = write_data(tmp_path / "val.json", images=2)
    detector = read_evaluated_run(write_run(tmp_path / "run", tmp_path / "val.json", results))
    with pytest.raises(ValueError, match="no task in common: .*label maps, .*boxes and masks"):
        compare_runs([runs["good_1"]], [detector])
    with pytest.raises(ValueError, match="no task in common"):
        study_runs([detector, runs["good_1"]])


def test_confusions_and_worst_images_are_those_of_the_label_maps(data, runs):
    study = study_runs([runs["good_1"], runs["bad_1"]])
    wrong = np.zeros(8)
    for run in study.runs:
        predicted = run.predicted_labels(range(8))
        for image, file in enumerate(sorted(Path(data[0]).iterdir())):
            truth = np.array(Image.open(file))
            wrong[image] += (predicted[image] != truth)[truth != 255].mean()
    assert study.worst_images(3) == np.argsort(-wrong)[:3].tolist()
    matrix = study.runs[1].confusions.matrix
    (truth, predicted, number), *_ = study.confusions(1, 3)
    assert truth != predicted and number == (matrix - np.diag(matrix.diagonal())).max()
    assert study_runs([runs["truth"]]).worst_images(3) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda own: own.update(category_id=77), "no valid label map of 000001.png"),
        (lambda own: own.update(category_id=[0]), "no valid label map"),
        (lambda own: own["segmentation"].update(counts="x"), "no valid label map"),
        (lambda own: own["segmentation"].update(size=[9, 9]), "no valid label map"),
        (lambda own: own.update(file_name="else"), "no whole label map"),
    ],
    ids=["class", "list", "counts", "size", "file"],
)
def test_predictions_that_are_not_whole_label_maps_are_refused(damage, message, folders, tmp_path):
    shutil.copytree(folders["good_1"][0], tmp_path / "run")
    file = tmp_path / "run" / "inference" / PREDICTIONS
    content = json.loads(file.read_text())
    damage(content[0])
    file.write_text(json.dumps(content))
    run = read_evaluated_run(tmp_path / "run")
    assert run.predicted_labels([1]).keys() == {1}
    with pytest.raises(ValueError, match=message):
        run.predicted_labels([0])


def test_a_run_that_was_not_evaluated_is_refused_with_the_command(folders, data, tmp_path):
    shutil.copytree(folders["good_1"][0], tmp_path / "run")
    (tmp_path / "run" / "inference" / "data.json").unlink()
    with pytest.raises(FileNotFoundError, match="--val-images, and --val-json or --val-labels"):
        read_evaluated_run(tmp_path / "run")
    assert read_evaluated_run(tmp_path / "run", data=data).label_root == Path(data[0])
    with pytest.raises(FileNotFoundError, match="val.json is no folder: .* label maps"):
        read_evaluated_run(tmp_path / "run", data=(str(tmp_path / "val.json"), data[1]))
    (tmp_path / "run" / "inference" / IMAGE_CONFUSIONS).unlink()
    with pytest.raises(FileNotFoundError, match="evaluate the run first, .* --val-labels DIR"):
        read_evaluated_run(tmp_path / "run")

"""The metrics of label maps against another implementation, and the counts that are kept."""

import json
from pathlib import Path

import numpy as np
import pytest
from hotcoco.semantic import SemanticEval
from label_sets import CLASSES, scores_of, write_label_set, wrong_labels
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

from resnest_d2.data import register_label_maps
from resnest_d2.evaluation import sem_seg_evaluator
from resnest_d2.evaluation.image_confusions import (
    IMAGE_CONFUSIONS,
    SEGMENTATION_METRICS,
    ImageConfusions,
)
from resnest_d2.evaluation.sem_seg_evaluator import SegmentationEvaluator, read_labels_as


@pytest.fixture(scope="module")
def coco(test_data, tmp_path_factory):
    """Label maps of COCO's panoptic categories, every second pixel: name, and those that occur."""
    folder = tmp_path_factory.mktemp("coco")
    root = test_data / "coco_panoptic_mini"
    content = json.loads((root / "annotations" / "panoptic_val2017.json").read_text())
    ids = [category["id"] for category in content["categories"]]
    numbers = np.full(256, 255, np.uint8)
    numbers[ids] = np.arange(len(ids))
    (folder / "labels").mkdir()
    (folder / "images").mkdir()
    for file in sorted((root / "annotations" / "semantic_val2017").iterdir())[:16]:
        labels = numbers[np.asarray(Image.open(file))[::2, ::2]]
        Image.fromarray(labels).save(folder / "labels" / file.name)
        Image.new("RGB", labels.shape[::-1]).save(folder / "images" / file.name)
    names = [category["name"] for category in content["categories"]]
    return register_label_maps(folder / "labels", folder / "images", names)


def test_miou_on_real_label_maps_is_that_of_another_implementation(coco, tmp_path):
    names = MetadataCatalog.get(coco).stuff_classes
    truths = {
        record["file_name"]: np.array(Image.open(record["sem_seg_file_name"]))
        for record in DatasetCatalog.get(coco)
    }
    # The implementations differ in classes that are predicted and never true.
    occur = np.unique(np.concatenate([np.unique(truth) for truth in truths.values()]))[:-1]
    other = SemanticEval(list(names))
    evaluator = SegmentationEvaluator(coco, str(tmp_path))
    evaluator.reset()
    for seed, (file, truth) in enumerate(truths.items()):
        found = wrong_labels(truth, occur, seed=seed, blocks=6)
        other.update(truth, found.astype(np.uint8))
        evaluator.process([{"file_name": file}], [{"sem_seg": scores_of(found, len(names))}])
    metrics, expected = evaluator.evaluate()["sem_seg"], other.results()
    ignored = sum((truth == 255).sum() for truth in truths.values())
    assert ignored > 1000 and 40 < len(occur) < len(names) and 10 < metrics["mIoU"] < 90
    for ours, theirs in zip(SEGMENTATION_METRICS, ("mIoU", "fwIoU", "mAcc", "aAcc"), strict=True):
        assert metrics[ours] == pytest.approx(100 * expected[theirs], abs=1e-6)
    kept = ImageConfusions.read(tmp_path / IMAGE_CONFUSIONS)
    np.testing.assert_array_equal(kept.matrix, other.confusion())
    counts = kept.class_counts()
    np.testing.assert_allclose(
        counts.segmentation_metrics()[:, 0], [metrics[name] for name in SEGMENTATION_METRICS]
    )
    for name, iou, accuracy, own in zip(
        names, counts.iou[0], counts.accuracy[0], expected["per_class"], strict=True
    ):
        if own["gt_area"]:
            assert (iou, accuracy) == pytest.approx((100 * own["IoU"], 100 * own["Acc"]), abs=1e-6)
            assert (metrics[f"IoU-{name}"], metrics[f"ACC-{name}"]) == (iou, accuracy)
        else:
            assert np.isnan(iou) and np.isnan(accuracy)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A small data set: folders of label maps and images."""
    return write_label_set(tmp_path_factory.mktemp("shapes"), val=5)["val"]


def _process(folders: tuple[str, str], output, kind=SegmentationEvaluator, part=slice(None)):
    """An evaluator that has seen a part of the images."""
    name = register_label_maps(*folders, CLASSES)
    options = {"sem_seg_loading_fn": read_labels_as} if kind is SemSegEvaluator else {}
    evaluator = kind(name, output_dir=str(output), **options)
    evaluator.reset()
    for seed, record in list(enumerate(DatasetCatalog.get(name)))[part]:
        truth = np.array(Image.open(record["sem_seg_file_name"]))
        found = wrong_labels(truth, np.arange(len(CLASSES)), seed=seed, blocks=6)
        evaluator.process([record], [{"sem_seg": scores_of(found, len(CLASSES))}])
    return evaluator


def test_metrics_and_files_are_those_of_detectron2(shapes, tmp_path):
    own = _process(shapes, tmp_path / "own").evaluate()
    theirs = _process(shapes, tmp_path / "theirs", SemSegEvaluator).evaluate()
    assert repr(own) == repr(theirs)  # a class may have NaN
    written = {file.name: file.read_bytes() for file in (tmp_path / "theirs").glob("*.json")}
    assert written and all((tmp_path / "own" / k).read_bytes() == v for k, v in written.items())
    more = {file.name for file in (tmp_path / "own").iterdir()} - {*written}
    assert more == {IMAGE_CONFUSIONS, "data.json", "sem_seg_evaluation.pth"}
    labels, images = shapes
    record = json.loads((tmp_path / "own" / "data.json").read_text())
    assert record == {"image_root": images, "label_root": labels}


def test_several_processes_keep_the_counts_of_one(shapes, tmp_path, monkeypatch):
    _process(shapes, tmp_path / "alone").evaluate()
    shares = [_process(shapes, tmp_path / "both", part=slice(n, None, 2)) for n in (1, 0)]
    second, first = shares
    monkeypatch.setattr(sem_seg_evaluator.comm, "gather", lambda own: [second._counts, own])
    first.evaluate()
    both, alone = (
        ImageConfusions.read(tmp_path / name / IMAGE_CONFUSIONS) for name in ("both", "alone")
    )
    for name, values in vars(alone).items():
        np.testing.assert_array_equal(getattr(both, name), values)
    assert alone.images.tolist() == [f"00000{n}.png" for n in range(1, 6)]
    assert alone.counts.sum() == sum(
        (np.array(Image.open(file)) != 255).sum() for file in Path(shapes[0]).iterdir()
    )


def test_counts_on_a_resample_are_those_of_repeated_images(shapes, tmp_path):
    _process(shapes, tmp_path).evaluate()
    kept = ImageConfusions.read(tmp_path / IMAGE_CONFUSIONS)
    times = np.array([[1, 1, 1, 1, 1], [3, 0, 0, 2, 0], [0, 5, 0, 0, 0]], float)
    found = kept.class_counts(times)
    for row, own in enumerate(times):
        matrix = sum(int(n) * kept.image_matrix(i) for i, n in enumerate(own))
        np.testing.assert_array_equal(found.correct[row], matrix.diagonal())
        np.testing.assert_array_equal(found.truth[row], matrix.sum(axis=1))
        np.testing.assert_array_equal(found.predicted[row], matrix.sum(axis=0))
    right, total = kept.by_image
    assert right.tolist() == [np.trace(kept.image_matrix(i)) for i in range(5)]
    assert total.tolist() == [62 * 64] * 5


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("truth", np.full(3, 6)),
        ("image", np.full(3, -1)),
        ("counts", np.full(3, 0.5)),
        ("labels", np.array(["one"])),
        ("sizes", np.ones((5, 3), int)),
    ],
)
def test_counts_that_are_not_valid_are_refused_by_name(name, values, shapes, tmp_path):
    _process(shapes, tmp_path).evaluate()
    file = tmp_path / IMAGE_CONFUSIONS
    with np.load(file) as archive:
        arrays = {key: archive[key] for key in archive}
    three = {key: arrays[key][:3] for key in ("image", "truth", "predicted", "counts")}
    np.savez(file, **{**arrays, **three, name: values})
    with pytest.raises(ValueError, match=f"{IMAGE_CONFUSIONS} has no valid {name}"):
        ImageConfusions.read(file)


def test_an_image_may_have_a_single_count_as_in_classification(tmp_path):
    truth, found = np.array([0, 1, 1, 2]), np.array([0, 1, 0, 2])
    images = np.array(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    ImageConfusions(
        class_names=np.array(["x", "y", "z"]),
        images=images,
        sizes=np.full((4, 2), 64),
        image=np.arange(4),
        truth=truth,
        predicted=found,
        counts=np.ones(4, int),
    ).write(tmp_path / IMAGE_CONFUSIONS)
    kept = ImageConfusions.read(tmp_path / IMAGE_CONFUSIONS)
    assert kept.labels is None and kept.images.tolist() == images.tolist()
    counts = kept.class_counts(np.array([[1.0, 1, 1, 1], [0, 0, 4, 0]]))
    np.testing.assert_array_equal(counts.overall_accuracy, [75, 0])
    np.testing.assert_array_equal(counts.accuracy, [[100, 50, 100], [np.nan, 0, np.nan]])


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / IMAGE_CONFUSIONS).write_bytes(content)
    with pytest.raises(ValueError, match=f"{IMAGE_CONFUSIONS} cannot be read"):
        ImageConfusions.read(tmp_path / IMAGE_CONFUSIONS)

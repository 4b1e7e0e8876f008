"""Every task's metrics: 100 for the truth itself, and what the definitions give for the rest."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from panoptic_set import read_ids, write_ids, write_panoptic_set
from PIL import Image
from processes import run_in_processes
from truths import true_instances

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators

from resnest_d2 import get_config
from resnest_d2.data import register_coco, register_coco_panoptic, sample_set
from resnest_d2.evaluation import PanopticEvaluator, ap_table, build_evaluator, write_results

PANOPTIC = ("MODEL.META_ARCHITECTURE", "PanopticFPN")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("panoptic")
    files = write_panoptic_set(root, images=4)
    return register_coco_panoptic(**files, sem_seg_root=root / "stuff")


def _config(folder, *opts):
    return get_config("sample_mask_rcnn_resnest14_fpn", ["OUTPUT_DIR", str(folder), *opts])


# ---- Outputs of models ----


def _scores(mask: np.ndarray, classes: int) -> torch.Tensor:
    """Semantic scores (classes, H, W) that choose these labels; class 0 where there is none."""
    labels = torch.from_numpy(np.where(mask < classes, mask, 0).astype(np.int64))
    return torch.nn.functional.one_hot(labels, classes).permute(2, 0, 1).float()


def _panoptic_output(ids: np.ndarray, categories: dict[int, int], metadata):
    """What a model says for segment ids (H, W) and their dataset categories."""
    things = metadata.thing_dataset_id_to_contiguous_id
    stuff = metadata.stuff_dataset_id_to_contiguous_id
    infos = [
        {
            "id": i,
            "isthing": c in things,
            "category_id": things[c] if c in things else stuff[c],
            "score": 1.0,
        }
        for i, c in categories.items()
    ]
    return torch.from_numpy(ids.astype(np.int32)), infos


def _truths(metadata) -> dict[int, tuple[np.ndarray, list[dict]]]:
    """Segment ids (H, W) and segment records of each image."""
    content = json.loads(Path(metadata.panoptic_json).read_text())
    return {
        a["image_id"]: (read_ids(Path(metadata.panoptic_root) / a["file_name"]), a["segments_info"])
        for a in content["annotations"]
    }


def _true_outputs(record, truth, metadata) -> dict:
    ids, segments = truth
    mask = np.array(Image.open(record["sem_seg_file_name"]))
    return {
        "instances": true_instances(record),
        "sem_seg": _scores(mask, len(metadata.stuff_classes)),
        "panoptic_seg": _panoptic_output(
            ids, {s["id"]: s["category_id"] for s in segments}, metadata
        ),
    }


def _evaluate(evaluator, records, outputs) -> dict:
    evaluator.reset()
    for record, output in zip(records, outputs, strict=True):
        evaluator.process([record], [output])
    return evaluator.evaluate()


# ---- The truth ----


def test_truth_has_100_in_every_panoptic_task(data, tmp_path):
    metadata, records = MetadataCatalog.get(data), DatasetCatalog.get(data)
    truths = _truths(metadata)
    outputs = [_true_outputs(record, truths[record["image_id"]], metadata) for record in records]
    results = _evaluate(build_evaluator(_config(tmp_path, *PANOPTIC), data), records, outputs)
    assert set(results) == {"bbox", "segm", "sem_seg", "panoptic_seg"}
    assert results["bbox"]["AP"] == results["segm"]["AP"] == pytest.approx(100)
    assert results["sem_seg"]["mIoU"] == results["sem_seg"]["pACC"] == pytest.approx(100)
    expected = [f"{metric}{part}" for part in ("", "_th", "_st") for metric in ("PQ", "SQ", "RQ")]
    assert results["panoptic_seg"] == {key: pytest.approx(100) for key in expected}

    write_results(results, tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["panoptic_seg"]["PQ_th"] == pytest.approx(100)
    assert "masks" in ap_table(results)


def test_truth_has_100_in_keypoints(tmp_path):
    data = register_coco(*sample_set(tmp_path, image_size=96, train_images=1, val_images=6)["val"])
    records = DatasetCatalog.get(data)
    opts = ("MODEL.KEYPOINT_ON", "True", "TEST.KEYPOINT_OKS_SIGMAS", "[0.05, 0.05, 0.05, 0.05]")
    outputs = [{"instances": true_instances(record)} for record in records]
    results = _evaluate(build_evaluator(_config(tmp_path, *opts), data), records, outputs)
    assert {task: metrics["AP"] for task, metrics in results.items()} == {
        task: pytest.approx(100) for task in ("bbox", "segm", "keypoints")
    }
    for output in outputs:  # a whole object's length away
        output["instances"].pred_keypoints[..., 0] += 96
    results = _evaluate(build_evaluator(_config(tmp_path, *opts), data), records, outputs)
    assert results["keypoints"]["AP"] < 1 and results["bbox"]["AP"] == pytest.approx(100)


def test_a_config_gets_the_evaluators_of_its_architecture_and_heads(data, tmp_path):
    def tasks(*opts):
        evaluator = build_evaluator(_config(tmp_path, *opts), data)
        all_of_them = getattr(evaluator, "_evaluators", [evaluator])
        return [type(e).__name__ for e in all_of_them], getattr(all_of_them[0], "_tasks", None)

    assert tasks() == (["CocoEvaluator"], ("bbox", "segm"))
    assert tasks("MODEL.MASK_ON", "False") == (["CocoEvaluator"], ("bbox",))
    retinanet = ("MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.MASK_ON", "False")
    assert tasks(*retinanet) == (["CocoEvaluator"], ("bbox",))
    assert tasks("MODEL.META_ARCHITECTURE", "SemanticSegmentor") == (
        ["SegmentationEvaluator"],
        None,
    )
    names = ["CocoEvaluator", "SemSegEvaluator", "PanopticEvaluator"]
    assert tasks(*PANOPTIC) == (names, ("bbox", "segm"))
    assert isinstance(build_evaluator(_config(tmp_path, *PANOPTIC), data), DatasetEvaluators)


# ---- Panoptic quality ----


def _slow_pq(truths, predictions, things: set[int]) -> dict[str, float]:
    """PQ of arXiv 1801.00868, equation 1 and section 4.2, by comparing every two segments.

    Args:
        truths, predictions: segment ids (H, W) and segment records of each image.
    """
    sums = {}  # category: [sum of IoU, TP, FP, FN]
    for image_id, (ids, segments) in truths.items():
        found, found_segments = predictions[image_id]
        matched = set()
        for truth in (s for s in segments if not s.get("iscrowd")):
            count = sums.setdefault(truth["category_id"], [0, 0, 0, 0])
            for segment in found_segments:
                if segment["category_id"] != truth["category_id"]:
                    continue
                inside = (found == segment["id"]) & (ids != 0)
                overlap = (inside & (ids == truth["id"])).sum()
                iou = overlap / (inside | (ids == truth["id"])).sum()
                if iou > 0.5:
                    count[0] += iou
                    count[1] += 1
                    matched |= {("truth", truth["id"]), ("found", segment["id"])}
            if ("truth", truth["id"]) not in matched:
                count[3] += 1
        for segment in found_segments:
            if ("found", segment["id"]) in matched:
                continue
            crowds = [
                s["id"]
                for s in segments
                if s.get("iscrowd") and s["category_id"] == segment["category_id"]
            ]
            inside = found == segment["id"]
            if (inside & np.isin(ids, [0, *crowds])).sum() / inside.sum() <= 0.5:
                sums.setdefault(segment["category_id"], [0, 0, 0, 0])[2] += 1
    results = {}
    for part, chosen in (("", None), ("_th", True), ("_st", False)):
        rows = [
            (iou / (tp + fp / 2 + fn / 2), iou / tp if tp else 0, tp / (tp + fp / 2 + fn / 2))
            for category, (iou, tp, fp, fn) in sums.items()
            if tp + fp + fn and (chosen is None or chosen == (category in things))
        ]
        for metric, column in zip(("PQ", "SQ", "RQ"), zip(*rows, strict=True), strict=True):
            results[f"{metric}{part}"] = 100 * sum(column) / len(column)
    return results


def _damage(ids: np.ndarray, segments: list[dict], rng, categories: list[int]):
    """A worse panoptic segmentation: moved, with segments lost, split, joined, misnamed."""
    step = max(1, ids.shape[0] // 40)
    moved = np.roll(ids, rng.integers(-step, step + 1, size=2), axis=(0, 1))
    worse, found = np.zeros_like(moved), {}
    for segment in segments:
        inside = moved == segment["id"]
        choice = rng.random()
        if not inside.any() or choice < 0.12:
            continue  # lost: unlabelled
        category = segment["category_id"]
        if choice < 0.24:
            category = int(rng.choice(categories))
        if choice > 0.88:  # split at a column
            inside[:, : int(np.nonzero(inside)[1].mean())] = False
        if inside.any():
            worse[inside] = len(found) + 250  # from one colour's range into the next
            found[len(found) + 250] = category
    return worse, [{"id": i, "category_id": c} for i, c in found.items()]


def _compare_with_slow_pq(name: str) -> dict[str, float]:
    metadata = MetadataCatalog.get(name)
    truths = _truths(metadata)
    things = set(metadata.thing_dataset_id_to_contiguous_id)
    categories = sorted({s["category_id"] for _, segments in truths.values() for s in segments})
    rng = np.random.default_rng(0)
    predictions = {i: _damage(*truth, rng, categories) for i, truth in truths.items()}
    outputs = [
        {
            "panoptic_seg": _panoptic_output(
                ids, {s["id"]: s["category_id"] for s in segments}, metadata
            )
        }
        for ids, segments in predictions.values()
    ]
    records = [{"image_id": image_id} for image_id in predictions]
    results = _evaluate(PanopticEvaluator(name), records, outputs)["panoptic_seg"]
    slow = _slow_pq(truths, predictions, things)
    assert results == {key: pytest.approx(value, abs=1e-9) for key, value in slow.items()}
    return results


def test_pq_equals_the_formula_on_drawn_shapes(data):
    results = _compare_with_slow_pq(data)
    assert 5 < results["PQ"] < 95


@pytest.fixture
def registered():
    """Names of data sets to forget after the test."""
    names = []
    yield names
    for name in names:
        MetadataCatalog.remove(name)


def _like_coco(name: str, panoptic_json: Path, panoptic_root: Path) -> str:
    coco = MetadataCatalog.get("coco_2017_val_panoptic_separated")
    keys = ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id")
    MetadataCatalog.get(name).set(
        panoptic_json=str(panoptic_json),
        panoptic_root=str(panoptic_root),
        **{key: coco.get(key) for key in keys},
    )
    return name


def test_pq_equals_the_formula_on_the_panoptic_apis_sample(test_data, registered):
    folder = test_data / "panopticapi_sample" / "sample_data"
    files = folder / "panoptic_examples.json", folder / "panoptic_examples"
    registered.append(_like_coco("panoptic_test_sample", *files))
    results = _compare_with_slow_pq("panoptic_test_sample")
    assert 5 < results["PQ"] < 95
    crowds = [
        s["id"]
        for _, segments in _truths(MetadataCatalog.get("panoptic_test_sample")).values()
        for s in segments
        if s["iscrowd"]
    ]
    assert crowds  # their rule was needed


@pytest.mark.slow
def test_pq_equals_the_formula_on_coco(test_data, registered):
    folder = test_data / "coco_panoptic_mini" / "annotations"
    files = folder / "panoptic_val2017.json", folder / "panoptic_val2017"
    registered.append(_like_coco("panoptic_test_coco", *files))
    assert 5 < _compare_with_slow_pq("panoptic_test_coco")["PQ"] < 95


def test_a_part_without_classes_has_no_number(tmp_path, registered):
    ids = np.full((4, 4), 7)
    write_ids(ids, tmp_path / "a.png")
    segments = [{"id": 7, "category_id": 184, "iscrowd": 0}]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 184, "name": "tree", "isthing": 0}],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    name = _like_coco("panoptic_test_stuff", tmp_path / "panoptic.json", tmp_path)
    registered.append(name)
    output = {"panoptic_seg": _panoptic_output(ids, {7: 184}, MetadataCatalog.get(name))}
    results = _evaluate(PanopticEvaluator(name), [{"image_id": 1}], [output])["panoptic_seg"]
    assert results["PQ"] == results["PQ_st"] == pytest.approx(100)
    assert math.isnan(results["PQ_th"])


def _pq_of_a_share(rank: int, processes: int = 2) -> dict:
    """PQ of damaged predictions, of which this process makes every second one."""
    folder = Path(os.environ["PANOPTIC_TEST_FOLDER"])
    files = json.loads((folder / "files.json").read_text())
    name = register_coco_panoptic(**files, sem_seg_root=folder / "stuff")
    metadata = MetadataCatalog.get(name)
    records, outputs = [], []
    for number, (image_id, truth) in enumerate(_truths(metadata).items()):
        if number % processes == rank:
            ids, segments = _damage(*truth, np.random.default_rng(number), [1, 2, 9, 17])
            categories = {s["id"]: s["category_id"] for s in segments}
            records.append({"image_id": image_id})
            outputs.append({"panoptic_seg": _panoptic_output(ids, categories, metadata)})
    results = _evaluate(PanopticEvaluator(name), records, outputs)
    return results["panoptic_seg"] if results else {}


def test_two_processes_give_the_numbers_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PANOPTIC_TEST_FOLDER", str(tmp_path))
    (tmp_path / "files.json").write_text(json.dumps(write_panoptic_set(tmp_path, images=5)))
    alone = _pq_of_a_share(0, 1)
    assert 5 < alone["PQ"] < 95
    assert run_in_processes(_pq_of_a_share, tmp_path) == [alone, {}]


# ---- Mean intersection over union ----


def test_miou_equals_a_loop_over_the_confusion_matrix(data, tmp_path):
    records, metadata = DatasetCatalog.get(data), MetadataCatalog.get(data)
    classes = len(metadata.stuff_classes)
    rng = np.random.default_rng(0)
    confusion = [[0] * classes for _ in range(classes)]  # [truth][found]
    outputs = []
    for record in records:
        mask = np.array(Image.open(record["sem_seg_file_name"]))
        found = np.where(rng.random(mask.shape) < 0.6, mask, rng.integers(0, classes, mask.shape))
        outputs.append({"sem_seg": _scores(found, classes)})
        found = np.where(found < classes, found, 0)
        for truth, label in zip(mask.flat, found.flat, strict=True):
            if truth != metadata.ignore_label:
                confusion[truth][label] += 1
    ious = [
        confusion[c][c] / (sum(confusion[c]) + sum(row[c] for row in confusion) - confusion[c][c])
        for c in range(classes)
    ]
    cfg = _config(tmp_path, "MODEL.META_ARCHITECTURE", "SemanticSegmentor")
    results = _evaluate(build_evaluator(cfg, data), records, outputs)["sem_seg"]
    assert results["mIoU"] == pytest.approx(100 * sum(ious) / classes)
    assert [results[f"IoU-{c}"] for c in metadata.stuff_classes] == [
        pytest.approx(100 * iou) for iou in ious
    ]

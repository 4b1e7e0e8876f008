"""COCO metrics of a model's outputs: by each implementation, process count and class, and file."""

import contextlib
import io
import json
import logging
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import small_config, small_detector
from PIL import Image
from processes import run_in_processes
from truths import true_instances

from detectron2.data import DatasetCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances, ROIMasks

from resnest_d2 import get_config
from resnest_d2.data import register_coco, sample_set
from resnest_d2.engine.training.trainer import Trainer
from resnest_d2.evaluation import (
    IMPLEMENTATIONS,
    CocoEvaluator,
    build_coco_evaluator,
    build_evaluator,
    write_results,
)
from resnest_d2.evaluation import coco_evaluator as coco

COCO_KEYS = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    return register_coco(*sample_set(root, image_size=96, train_images=2, val_images=8)["val"])


def _evaluator(data, folder, *opts, output_folder=None):
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", ["OUTPUT_DIR", str(folder), *opts])
    return build_coco_evaluator(cfg, data, output_folder)


def _evaluate(data, folder, predict, *opts, records=None):
    evaluator = _evaluator(data, folder, *opts)
    evaluator.reset()
    for record in DatasetCatalog.get(data) if records is None else records:
        evaluator.process([record], [{"instances": predict(record)}])
    return evaluator.evaluate()


def _damaged(record: dict) -> Instances:
    """Objects moved, some lost, some of another class; three scores, so that many are equal."""
    rng = np.random.default_rng(record["image_id"])
    true = true_instances(record)
    some = true[torch.from_numpy(rng.integers(0, len(true), 12))]
    some.pred_boxes = Boxes(some.pred_boxes.tensor + torch.from_numpy(rng.normal(0, 3, (12, 4))))
    some.pred_masks = torch.stack(
        [mask.roll(tuple(rng.integers(-3, 4, 2)), (0, 1)) for mask in some.pred_masks]
    )
    other = torch.from_numpy(rng.random(12) < 0.3)
    some.pred_classes = torch.where(other, (some.pred_classes + 1) % 5, some.pred_classes)
    some.scores = torch.from_numpy(rng.choice([0.2, 0.5, 0.9], 12))
    return some


def test_ground_truth_as_prediction_has_ap_100(data, tmp_path, capsys):
    results = _evaluate(data, tmp_path, true_instances)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)
    assert capsys.readouterr().out.count("] = ") == 24


def test_no_detection_has_ap_0_and_all_24_numbers(data, tmp_path, capsys):
    results = _evaluate(data, tmp_path, lambda record: true_instances(record)[:0])
    assert results["bbox"]["AP"] == results["segm"]["AP"] == 0
    assert capsys.readouterr().out.count("] = ") == 24


def test_the_config_chooses_the_implementation_and_not_the_numbers(data, tmp_path, monkeypatch):
    keypoints = ("MODEL.KEYPOINT_ON", "True", "TEST.KEYPOINT_OKS_SIGMAS", "[0.05,0.05,0.05,0.05]")
    results = {
        name: _evaluate(data, tmp_path / name, _damaged, "RESNEST.EVALUATOR", name, *keypoints)
        for name in IMPLEMENTATIONS
    }
    fast, reference = results["hotcoco"], results["pycocotools"]
    assert json.dumps(fast) == json.dumps(reference)  # NaN too
    assert list(fast) == ["bbox", "keypoints", "segm"] and 5 < fast["segm"]["AP"] < 95

    def refuse(*_, **__):
        raise AssertionError("hotcoco was used")

    monkeypatch.setattr("hotcoco.COCOeval", refuse)
    with pytest.raises(AssertionError, match="hotcoco was used"):
        _evaluate(data, tmp_path / "default", _damaged)
    assert _evaluate(data, tmp_path, _damaged, "RESNEST.EVALUATOR", "pycocotools")
    with pytest.raises(ValueError, match=r"RESNEST.EVALUATOR must be one of \('hotcoco', .*'fast'"):
        _evaluator(data, tmp_path, "RESNEST.EVALUATOR", "fast")


def test_all_24_numbers_and_each_class_are_in_the_results(data, tmp_path, capsys, caplog):
    with caplog.at_level(logging.INFO):
        results = _evaluate(data, tmp_path, _damaged)
    lines = [line for line in capsys.readouterr().out.splitlines() if "] = " in line]
    printed = [float(line.split("] = ")[1]) for line in lines]
    reported = [results[task][key] for task in ("bbox", "segm") for key in COCO_KEYS]
    assert np.nan_to_num(reported, nan=-100) == pytest.approx(100 * np.array(printed), abs=0.051)
    classes = ("circle", "square", "triangle", "star", "ring")
    assert set(results["bbox"]) == {*COCO_KEYS, *(f"AP-{name}" for name in classes)}
    mean = np.nanmean([results["segm"][f"AP-{name}"] for name in classes])
    assert results["segm"]["AP"] == pytest.approx(mean)
    assert "Per-category segm AP" in caplog.text and "star" in caplog.text


def _write_set(folder: Path, classes: list[str], of_objects: list[int]) -> str:
    """Registered blank pictures of 64 x 64 with one object each; ids with gaps."""
    folder.mkdir()
    content = {
        "images": [
            {"id": 10 * i, "file_name": f"{i}.png", "height": 64, "width": 64}
            for i, _ in enumerate(of_objects, start=1)
        ],
        "categories": [{"id": 7 * i + 3, "name": name} for i, name in enumerate(classes)],
        "annotations": [
            {
                **{"id": i, "image_id": 10 * i, "category_id": 7 * c + 3, "iscrowd": 0},
                **{"bbox": [4, 4, 20, 20], "area": 400, "segmentation": [[4, 4, 24, 4, 24, 24]]},
            }
            for i, c in enumerate(of_objects, start=1)
        ],
    }
    for image in content["images"]:
        Image.new("RGB", (64, 64)).save(folder / image["file_name"])
    (folder / "val.json").write_text(json.dumps(content))
    return register_coco(folder / "val.json", folder)


def _found(record: dict) -> Instances:
    objects = record["annotations"]
    return Instances(
        (64, 64),
        pred_boxes=Boxes(torch.tensor([[4.0, 4, 24, 24]] * len(objects))),
        scores=torch.ones(len(objects)),
        pred_classes=torch.tensor([a["category_id"] for a in objects]),
    )


BOXES = ("MODEL.MASK_ON", "False")


def test_a_data_set_of_one_class_has_its_class_too(tmp_path):
    data = _write_set(tmp_path / "data", ["cell"], [0, 0])
    results = _evaluate(data, tmp_path, _found, *BOXES)["bbox"]
    assert results["AP-cell"] == results["AP"] == pytest.approx(100)


def test_a_class_without_objects_is_null_in_the_file(tmp_path):
    data = _write_set(tmp_path / "data", ["a", "b-c", "d"], [0, 2, 2])
    results = _evaluate(data, tmp_path, _found, *BOXES)
    write_results(results, tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())["bbox"]
    assert written["AP-b-c"] is None and written["APm"] is None and written["ARl"] is None
    assert [written[key] for key in ("AP", "AP-a", "AP-d")] == [pytest.approx(100)] * 3


def test_detections_are_written_with_the_data_set_s_ids_in_its_order(tmp_path):
    data = _write_set(tmp_path / "data", ["a", "b"], [1, 0, 1])
    records = DatasetCatalog.get(data)
    evaluator = _evaluator(data, tmp_path, *BOXES, output_folder=str(tmp_path / "elsewhere"))
    evaluator.reset()
    for record in reversed(records):
        evaluator.process([record], [{"instances": _found(record)}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)  # asked twice
    written = json.loads((tmp_path / "elsewhere" / "coco_instances_results.json").read_text())
    assert [(r["image_id"], r["category_id"]) for r in written] == [(10, 10), (20, 3), (30, 10)]
    assert not (tmp_path / "inference").exists()


@pytest.mark.parametrize("number", [0, 1, 5])
def test_masks_are_encoded_as_detectron2_does(data, tmp_path, monkeypatch, number):
    monkeypatch.setattr(coco, "_ENCODED_PIXELS", 2 * 30 * 41)  # two at once
    masks = torch.rand(number, 30, 41) < torch.linspace(0, 1, number)[:, None, None]
    instances = Instances(
        (30, 41),
        pred_boxes=Boxes(torch.rand(number, 4)),
        scores=torch.rand(number),
        pred_classes=torch.arange(number),
        pred_masks=masks,
    )
    ours, theirs = _evaluator(data, tmp_path), COCOEvaluator(data, output_dir=str(tmp_path))
    for evaluator in (ours, theirs):
        evaluator.reset()
        evaluator.process([{"image_id": 7}], [{"instances": instances}])
    assert len(ours._predictions) == 1 and ours._predictions == theirs._predictions
    assert instances.has("pred_masks")


class _Detectron2s(Trainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        return COCOEvaluator(dataset_name, output_dir=folder, use_fast_impl=False)


@pytest.mark.parametrize("test", ["test", "test_augmented"])
def test_evaluation_pastes_no_mask_and_detectron2_s_evaluator_gets_the_same_ones_pasted(
    test, data, tmp_path, monkeypatch
):
    opts = ("TEST.AUG.MIN_SIZES", "(48,)", "INPUT.MIN_SIZE_TEST", "64")
    cfg = small_config("mask", *opts, "DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(tmp_path))
    cfg.DATASETS.TEST = (data,)
    torch.manual_seed(0)
    model = small_detector("mask", *opts)
    (tmp_path / "TTA" / "inference").mkdir(parents=True)

    def detections(trainer):
        getattr(trainer, test)(cfg, model)
        (file,) = tmp_path.rglob("coco_instances_results.json")
        found = json.loads(file.read_text())
        file.unlink()
        return found

    expected = detections(_Detectron2s)
    monkeypatch.setattr(ROIMasks, "to_bitmasks", None)  # how Detectron2 pastes them
    assert len(expected) > 20 and detections(Trainer) == expected
    with pytest.raises(TypeError, match="not callable"):
        detections(_Detectron2s)


def test_chosen_images_alone_can_be_evaluated(tmp_path):
    data = _write_set(tmp_path / "data", ["a"], [0, 0, 0, 0])
    evaluator = _evaluator(data, tmp_path, *BOXES)
    evaluator.reset()
    for record in DatasetCatalog.get(data)[:2]:
        evaluator.process([record], [{"instances": _found(record)}])
    assert evaluator.evaluate()["bbox"]["AR100"] == pytest.approx(50)
    assert evaluator.evaluate(img_ids=[10, 20])["bbox"]["AR100"] == pytest.approx(100)


def test_more_than_100_detections_count_where_the_caller_says_so(tmp_path):
    data = _write_set(tmp_path / "data", ["a"], [0])
    (record,) = DatasetCatalog.get(data)

    def aside(record):  # 120 wrong boxes come first
        found = _found(record)
        wrong = Instances((64, 64), pred_boxes=Boxes(torch.tensor([[40.0, 40, 60, 60]] * 120)))
        wrong.scores, wrong.pred_classes = torch.full((120,), 2.0), torch.zeros(120).long()
        return Instances.cat([wrong, found])

    for implementation in IMPLEMENTATIONS:
        for limit, recall in ((None, 0), (200, 100)):
            evaluator = CocoEvaluator(
                data, ("bbox",), implementation=implementation, max_dets_per_image=limit
            )
            evaluator.reset()
            evaluator.process([record], [{"instances": aside(record)}])
            assert evaluator.evaluate()["bbox"][f"AR{limit or 100}"] == pytest.approx(recall)


def test_every_evaluator_writes_into_the_folder_given(data, tmp_path):
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", ["OUTPUT_DIR", str(tmp_path)])
    assert build_evaluator(cfg, data, str(tmp_path / "tta"))._output_dir == str(tmp_path / "tta")
    assert build_evaluator(cfg, data)._output_dir == str(tmp_path / "inference")


# ---- Shares of several processes ----


def _metrics_of_a_share(rank: int = 0) -> str:
    """Metrics as JSON; the process evaluates what Detectron2's sampler gives it."""
    folder = Path(os.environ["COCO_TEST_FOLDER"])
    with contextlib.redirect_stdout(io.StringIO()):
        data = register_coco(
            *sample_set(folder, image_size=96, train_images=1, val_images=5)["val"]
        )
        records = DatasetCatalog.get(data)
        share = [records[i] for i in InferenceSampler(len(records))]
        name = os.environ["COCO_TEST_EVALUATOR"]
        options = ("RESNEST.EVALUATOR", name)
        return json.dumps(_evaluate(data, folder / name, _damaged, *options, records=share))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_two_processes_give_the_numbers_of_one(tmp_path, monkeypatch, implementation):
    monkeypatch.setenv("COCO_TEST_FOLDER", str(tmp_path))
    monkeypatch.setenv("COCO_TEST_EVALUATOR", implementation)
    alone = _metrics_of_a_share()
    written = tmp_path / implementation / "inference" / "coco_instances_results.json"
    detections = written.read_bytes()
    written.unlink()
    assert 5 < json.loads(alone)["segm"]["AP"] < 95
    assert run_in_processes(_metrics_of_a_share, tmp_path) == [alone, "{}"]  # 3 and 2 images
    assert written.read_bytes() == detections


def test_neither_order_nor_repetition_of_images_changes_a_number(data, tmp_path, caplog):
    records = DatasetCatalog.get(data)
    once = _evaluate(data, tmp_path, _damaged)
    backwards = _evaluate(data, tmp_path, _damaged, records=records[::-1])
    assert json.dumps(backwards) == json.dumps(once)  # NaN too
    filled_up = [*records, *records[:3]]  # as PyTorch's DistributedSampler does
    assert json.dumps(_evaluate(data, tmp_path, _damaged, records=filled_up)) == json.dumps(once)
    assert "3 of 11 predictions are for an image that had one already" in caplog.text


# ---- What cannot be evaluated ----


def test_predictions_of_another_data_set_or_model_are_refused(tmp_path):
    data = _write_set(tmp_path / "data", ["a", "b"], [0, 1])
    record = DatasetCatalog.get(data)[0]
    other = {**record, "image_id": 77}
    with pytest.raises(ValueError, match=r"predictions for images \[77\], which .*val.json does"):
        _evaluate(data, tmp_path, _found, *BOXES, records=[record, other])

    def more_classes(record):
        found = _found(record)
        found.pred_classes[:] = 2
        return found

    with pytest.raises(ValueError, match="image 10 has class 2, and .* has 2 classes"):
        _evaluate(data, tmp_path, more_classes, *BOXES)


def test_images_without_predictions_are_reported(tmp_path, caplog):
    data = _write_set(tmp_path / "data", ["a"], [0, 0, 0])
    _evaluate(data, tmp_path, _found, *BOXES, records=DatasetCatalog.get(data)[:1])
    assert "no predictions for 2 of 3 images" in caplog.text and "[20, 30]" in caplog.text


def test_a_file_without_annotations_gives_detections_alone(tmp_path):
    data = _write_set(tmp_path / "data", ["a"], [0])
    (record,) = DatasetCatalog.get(data)
    file = tmp_path / "data" / "val.json"
    content = json.loads(file.read_text())
    del content["annotations"]
    file.write_text(json.dumps(content))
    assert _evaluate(data, tmp_path, _found, *BOXES, records=[record]) == {}
    assert len(json.loads((tmp_path / "inference/coco_instances_results.json").read_text())) == 1


def test_results_are_written_as_strict_json(tmp_path):
    results = {"bbox": {"AP": np.float64(41.5), "APs": math.nan}}
    write_results(results, tmp_path / "new" / "results.json")
    written = json.loads(
        (tmp_path / "new" / "results.json").read_text(), parse_constant=pytest.fail
    )
    assert written == {"bbox": {"AP": 41.5, "APs": None}}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]

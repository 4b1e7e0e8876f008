"""COCO metrics: AP 0 without a detection, 100 for the ground truth itself, and their file."""

import json
import math

import numpy as np
import pytest
from truths import true_instances

from detectron2.data import DatasetCatalog

from resnest_d2 import get_config
from resnest_d2.data import register_coco, sample_set
from resnest_d2.evaluation import build_coco_evaluator, write_results


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    return register_coco(*sample_set(root, image_size=96, train_images=2, val_images=8)["val"])


def _evaluate(data, tmp_path, predict):
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", ["OUTPUT_DIR", str(tmp_path)])
    evaluator = build_coco_evaluator(cfg, data)
    evaluator.reset()
    for record in DatasetCatalog.get(data):
        evaluator.process([record], [{"instances": predict(record)}])
    return evaluator.evaluate()


def test_ground_truth_as_prediction_has_ap_100(data, tmp_path, capsys):
    results = _evaluate(data, tmp_path, true_instances)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)
    assert capsys.readouterr().out.count("] = ") == 24


def test_no_detection_has_ap_0_and_all_24_numbers(data, tmp_path, capsys):
    results = _evaluate(data, tmp_path, lambda record: true_instances(record)[:0])
    assert results["bbox"]["AP"] == results["segm"]["AP"] == 0
    assert capsys.readouterr().out.count("] = ") == 24


def test_results_are_written_as_strict_json(tmp_path):
    results = {"bbox": {"AP": np.float64(41.5), "APs": math.nan}}
    write_results(results, tmp_path / "new" / "results.json")
    written = json.loads(
        (tmp_path / "new" / "results.json").read_text(), parse_constant=pytest.fail
    )
    assert written == {"bbox": {"AP": 41.5, "APs": None}}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]

"""Real COCO images through ``tools/train_net.py``, as a user runs it. Minutes to an hour."""

import json
import math
import subprocess
import sys

import pytest
from checkout import ROOT, needs_checkout
from optimised import check_optimised_ap

pytestmark = [pytest.mark.slow, needs_checkout]


def _train_net(*arguments) -> str:
    command = [sys.executable, "-W", "ignore", str(ROOT / "tools" / "train_net.py"), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def _data(kind: str, json_file, folder) -> list[str]:
    return [f"--{kind}-json", str(json_file), f"--{kind}-images", str(folder)]


def test_eight_images_are_learned_by_heart(test_data, tmp_path):
    coco = test_data / "coco_train_mini"
    content = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    ids = {30, 92, 136, 144, 321, 326, 387, 428}
    content["images"] = [image for image in content["images"] if image["id"] in ids]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    eight = tmp_path / "eight.json"
    eight.write_text(json.dumps(content))
    _train_net(
        *("--config-file", str(ROOT / "configs" / "memorise_mask_rcnn_resnest50_fpn.yaml")),
        *_data("train", eight, coco / "images"),
        *_data("val", eight, coco / "images"),
        *("--output-json", str(tmp_path / "results.json")),
        *("OUTPUT_DIR", str(tmp_path / "run"), "SEED", "1"),
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["bbox"]["AP"] >= 75
    assert results["segm"]["AP"] >= 55
    check_optimised_ap(tmp_path / "run", eight, coco / "images", tmp_path / "optimised")


def test_recipe_trains_and_evaluates_and_evaluation_repeats(test_data, tmp_path):
    train, val = test_data / "coco_train_mini", test_data / "coco_val_mini"
    config = ("--config-file", str(ROOT / "configs" / "mask_rcnn_resnest50_fpn.yaml"))
    on_val = _data("val", val / "annotations" / "instances_val2017.json", val / "images")
    small = (
        "INPUT.MIN_SIZE_TEST 256 INPUT.MAX_SIZE_TEST 448 MODEL.RPN.POST_NMS_TOPK_TEST 200 SEED 1"
    )
    short = (
        "SOLVER.MAX_ITER 100 SOLVER.IMS_PER_BATCH 2 SOLVER.BASE_LR 0.0025 SOLVER.WARMUP_ITERS 20 "
        "INPUT.MIN_SIZE_TRAIN (256,) INPUT.MAX_SIZE_TRAIN 448 TEST.PRECISE_BN.NUM_ITER 20 "
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 128 MODEL.BACKBONE.FREEZE_AT 0 "
        "RESNEST.AMP_DTYPE auto RESNEST.CHANNELS_LAST True"
    )
    run = tmp_path / "run"
    log = _train_net(
        *config,
        *_data("train", train / "annotations" / "instances_train2017.json", train / "images"),
        *on_val,
        *("--output-json", str(tmp_path / "trained.json")),
        *("OUTPUT_DIR", str(run), "MODEL.WEIGHTS", "", *short.split(), *small.split()),
    )
    assert log.count("Average Precision") + log.count("Average Recall") == 24
    losses = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    totals = [line["total_loss"] for line in losses if "total_loss" in line]
    assert all(math.isfinite(total) for total in totals)
    assert totals[-1] < totals[0]

    _train_net(
        *config,
        "--eval-only",
        *on_val,
        *("--output-json", str(tmp_path / "evaluated.json")),
        *("MODEL.WEIGHTS", str(run / "model_final.pth"), "OUTPUT_DIR", str(tmp_path / "e")),
        *small.split(),
    )
    assert (tmp_path / "evaluated.json").read_text() == (tmp_path / "trained.json").read_text()

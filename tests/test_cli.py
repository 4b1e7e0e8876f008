"""The command: exit codes, messages, one train-evaluate-predict round."""

import argparse
import json

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.modeling import build_model

from resnest_d2.cli import main
from resnest_d2.config import get_config
from resnest_d2.data import sample_set


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "mask_rcnn_resnest51_fpn"], "mask_rcnn_resnest50_fpn"),
        (["--config-file", "mask_rcnn_resnest50_fpn", "SOLVER.BASE_LAR", "1"], "SOLVER.BASE_LR"),
        (["--config-file", "mask_rcnn_resnest50_fpn", "--train-json", "a.json"], "--train-images"),
        (
            ["--config-file", "mask_rcnn_resnest50_fpn", "MODEL.RESNETS.DEPTH", "42"],
            "MODEL.RESNETS.DEPTH must be one of (14, 26, 50, 101, 200, 269), got 42",
        ),
        (["--config-file", "mask_rcnn_resnest50_fpn", "--num-gpus", "0"], "at least 1"),
        (["--config-file", "mask_rcnn_resnest50_fpn"], "--train-json"),
    ],
)
def test_refused_input_exits_with_2_and_says_why(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_missing_json_is_refused_with_its_name(tmp_path, capsys):
    arguments = ["--train-json", str(tmp_path / "no.json"), "--train-images", str(tmp_path)]
    assert main(["train", "--config-file", "mask_rcnn_resnest50_fpn", *arguments]) == 2
    assert "no.json" in capsys.readouterr().err


def test_other_pickles_are_refused_unless_trusted(tmp_path, capsys):
    data = sample_set(tmp_path / "data", image_size=64, train_images=2, val_images=1)
    config = ["--config-file", "sample_mask_rcnn_resnest14_fpn"]
    config += ["--train-json", data["train"][0], "--train-images", data["train"][1]]
    tiny = "MODEL.DEVICE cpu SOLVER.MAX_ITER 1 SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0"
    opts = [*tiny.split(), "OUTPUT_DIR", str(tmp_path / "run")]
    model = build_model(get_config("sample_mask_rcnn_resnest14_fpn", ["MODEL.DEVICE", "cpu"]))
    weights = {"model": model.state_dict(), "args": argparse.Namespace(lr=0.1)}
    torch.save(weights, tmp_path / "weights.pth")
    opts += ["MODEL.WEIGHTS", str(tmp_path / "weights.pth")]
    assert main(["train", *config, *opts]) == 2
    assert "weights.pth" in capsys.readouterr().err
    assert main(["train", *config, "--trust-pickle", *opts]) == 0


def test_train_evaluate_predict(tmp_path, capsys):
    data = sample_set(tmp_path / "data", image_size=64, train_images=4, val_images=2)
    files = ["--train-json", data["train"][0], "--train-images", data["train"][1]]
    val = ["--val-json", data["val"][0], "--val-images", data["val"][1]]
    config = ["--config-file", "sample_mask_rcnn_resnest14_fpn"]
    tiny = "MODEL.DEVICE cpu SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0"
    opts = [*tiny.split(), "OUTPUT_DIR", str(tmp_path / "run")]
    assert main(["train", *config, *files, *val, *opts]) == 0

    output = tmp_path / "results.json"
    weights = ["MODEL.WEIGHTS", str(tmp_path / "run" / "model_final.pth")]
    evaluate = ["evaluate", *config, *val, "--output-json", str(output), *opts, *weights]
    assert main(evaluate) == 0
    assert set(json.loads(output.read_text())) == {"bbox", "segm"}
    capsys.readouterr()

    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8)).save(picture)
    predict = ["predict", str(picture), "--checkpoint", str(tmp_path / "run"), "--json"]
    assert main([*predict, "--device", "cpu", "--out", str(tmp_path / "found")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["predicted"] == 1 and printed["folder"] == str(tmp_path / "found")
    assert (tmp_path / "found" / "picture.png").is_file()


def test_predict_refuses_a_missing_picture_before_it_starts(tmp_path, capsys):
    assert main(["predict", "none.jpg", "--checkpoint", str(tmp_path / "none.pth")]) == 2
    assert "none" in capsys.readouterr().err

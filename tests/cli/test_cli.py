"""The command: exit codes, messages, JSON, progress, one train-evaluate-predict round."""

import argparse
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import parsers_of
from PIL import Image
from runs import TINY

from detectron2.modeling import build_model

from resnest_d2 import progress
from resnest_d2.config import get_config
from resnest_d2.data import sample_set
from resnest_d2_command import main
from resnest_d2_command.parsers import build_parser


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
        (
            ["--config-file", "mask_rcnn_resnest50_fpn", "OUTPUT_DIR", "x", "--resume"],
            "--resume must stand before the KEY VALUE pairs",
        ),
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

    output, found = tmp_path / "results.json", []
    evaluate = ["evaluate", *val, "--output-json", str(output)]
    final = str(tmp_path / "run" / "model_final.pth")
    for way in (
        [*config, *opts, "MODEL.WEIGHTS", final],
        ["--checkpoint", final],
        ["--checkpoint", str(tmp_path / "run")],
    ):
        assert main([*evaluate, *way]) == 0
        found.append(json.loads(output.read_text()))
    assert set(found[0]) == {"bbox", "segm"} and found == [found[0]] * 3
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


# ---- for scripts ----


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return sample_set(str(folder), image_size=64, train_images=4, val_images=2)


def _training(data: dict, folder: Path, *options: str) -> list[str]:
    files = ["--train-json", data["train"][0], "--train-images", data["train"][1]]
    files += ["--val-json", data["val"][0], "--val-images", data["val"][1]]
    config = ["--config-file", "sample_mask_rcnn_resnest14_fpn"]
    return ["train", *config, *files, *options, *TINY, "OUTPUT_DIR", str(folder)]


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_training_for_a_script_prints_json_or_nothing(option, data, tmp_path):
    """In a process of its own: what is printed there by others counts too."""
    command = [sys.executable, "-W", "ignore", "-m", "resnest_d2.cli"]
    done = subprocess.run(
        [*command, *_training(data, tmp_path / "run", option)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if option == "--json":
        assert set(json.loads(done.stdout)) == {"bbox", "segm"}
    else:
        assert not done.stdout
    assert ("Starting training" in done.stderr) == (option == "--json")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Starting training" in log and "Running with full config" in log


def test_a_warning_is_shown_where_the_log_is_not(data, tmp_path, capsys):
    arguments = _training(data, tmp_path / "run", "--quiet")
    arguments += ["SOLVER.WARMUP_ITERS", "50"]  # of 2: never at the full rate
    handlers = {name: logging.getLogger(name).handlers[:] for name in ("detectron2", "resnest_d2")}
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert not printed.out and "WARNING: SOLVER.WARMUP_ITERS 50" in printed.err
    for name, before in handlers.items():  # later runs in this process show theirs
        logging.getLogger(name).handlers[:] = before


def test_json_and_quiet_are_where_they_should_be():
    """--json wherever figures or files are the result, --quiet wherever there is a bar or a log."""
    options = {
        parser.prog.removeprefix("resnest-d2 "): set(parser._option_string_actions)
        for parser in parsers_of(build_parser())
        if not parser._subparsers
    }
    without_json = {"convert", "data show"}  # write a file and say so in a line
    without_quiet = {"convert", "replay"}  # show no progress
    assert {name for name, own in options.items() if "--json" not in own} == without_json
    assert {name for name, own in options.items() if "--quiet" not in own} == without_quiet


def test_every_command_takes_data_by_the_same_options(data, tmp_path, capsys):
    """Older forms, pairs of ``JSON IMAGES``, give the same."""
    train, val = ([*pair] for pair in (data["train"], data["val"]))
    as_options = ["--train-json", train[0], "--train-images", train[1]]
    as_options += ["--val-json", val[0], "--val-images", val[1]]
    shown = []
    for number, paths in enumerate((as_options, [*train, *val])):
        assert main(["data", "check", *paths, "--json"]) == 0
        sheet = tmp_path / f"{number}.png"
        assert main(["data", "show", *paths[: len(paths) // 2], "--out", str(sheet)]) == 0
        shown.append((capsys.readouterr().out.replace(str(sheet), ""), sheet.read_bytes()))
    assert shown[0] == shown[1]

    assert main(["data", "check", "--train-json", train[0]]) == 2
    assert "--train-json and --train-images belong together" in capsys.readouterr().err
    for words in (["data", "check"], ["data", "show", "--out", str(tmp_path / "s.png")]):
        assert main(words) == 2
        assert "give --train-json FILE --train-images DIR" in capsys.readouterr().err
        assert main([*words, *train[:1]]) == 2
        assert "pairs of JSON and IMAGES, got 1 paths" in capsys.readouterr().err
    for parser in parsers_of(build_parser()):
        options = {*parser._option_string_actions}
        assert ("--val-json" in options) == ("--val-images" in options)
        assert "--data" not in options or "--val-json" in options


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("arguments", "bars"),
    [
        ("data check {json} {images}", ["checking annotations", "reading images"]),
        ("data stats {json}", ["counting annotations"]),
        ("data split {json} --images {images} --out {out}", ["comparing images"]),
        ("data show {json} {images} --out {out}/sheet.png", ["drawing"]),
        ("benchmark resnest14 resnet50 --size 32 32 --runs 1", ["building and counting", "timing"]),
    ],
)
def test_a_bar_shows_progress_on_a_terminal_unless_quiet(
    arguments, bars, data, tmp_path, monkeypatch
):
    json_file, images = data["train"]
    monkeypatch.setattr(progress, "_DELAY", 0)
    for number, options in enumerate(([], ["--quiet"])):
        copy = tmp_path / f"{number}.json"  # a file that no cache knows
        copy.write_text(Path(json_file).read_text())
        words = arguments.format(json=copy, images=images, out=tmp_path / f"out{number}")
        terminal = _Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main([*words.split(), *options]) == 0
        for bar in bars:
            assert (f"{bar}: " in terminal.getvalue()) == (not options)


def test_a_call_from_python_shows_no_bar_unless_it_asks(monkeypatch):
    monkeypatch.setattr(progress, "_DELAY", 0)
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.progress_bar(range(3), desc="counting")) == [0, 1, 2]
    assert not terminal.getvalue()
    with progress.show_progress():
        list(progress.progress_bar(range(3), desc="counting"))
    assert "counting" in terminal.getvalue()


def test_a_reader_that_has_gone_is_no_traceback():
    code = "import sys; from resnest_d2_command import main; sys.exit(main(['zoo']))"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_what_must_not_be_read_or_written_is_said_in_one_line(data, tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "secret.json")

    monkeypatch.setattr("resnest_d2.data.stats.read_sound_coco", refuse)
    assert main(["data", "stats", "secret.json"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / "folder")
    assert main(["benchmark", "resnest14", "--runs", "0", "--out", out]) == 1
    assert f"{out} is not written: Not a directory" in capsys.readouterr().err


def test_interrupted_is_130(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("resnest_d2.data.stats.coco_stats", interrupt)
    assert main(["data", "stats", "train.json"]) == 130
    assert capsys.readouterr().err == "resnest-d2: error: interrupted\n"

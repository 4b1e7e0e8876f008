"""``resnest-d2 predict``: what it prints, what it exits with, how it can be stopped."""

import errno
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from commands import finish, start, wait_for
from detectors import save_detector
from PIL import Image
from tqdm import tqdm

from resnest_d2 import Predictor, progress
from resnest_d2.predict.journal import JOURNAL
from resnest_d2_command import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    small = ("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96")
    return save_detector(tmp_path_factory.mktemp("model") / "model.pth", "faster", *small)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(random.integers(0, 256, (40, 56, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def command(checkpoint, pictures, tmp_path):
    """The command line for a folder of four pictures."""
    arguments = ["predict", pictures, "--checkpoint", checkpoint, "--out", tmp_path / "out"]
    return [str(a) for a in [*arguments, "--device", "cpu", "--score-threshold", 0.3]]


def test_all_predicted_exits_with_0_and_says_where_results_are(command, tmp_path, capsys):
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("4 files predicted, 0 failed\n" + str(tmp_path / "out"))
    assert "failed" not in printed.err
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("0 files predicted, 4 had been before, 0 failed\n")


def test_files_that_failed_are_shown_and_exit_with_1(command, pictures, capsys):
    (pictures / "text.jpg").write_text("no picture")
    frames = [Image.new("L", (30, 30), value) for value in (0, 255)]
    frames[0].save(pictures / "moving.gif", save_all=True, append_images=frames[1:])
    assert main([*command, "--quiet"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "failed: text.jpg: it is damaged or in none of the formats" in printed.err
    assert "note" not in printed.err
    assert main(command) == 1
    assert capsys.readouterr().out.startswith("0 files predicted, 5 had been before, 1 failed\n")


def test_links_to_nothing_fail_until_there_is_something(command, pictures, tmp_path, capsys):
    (pictures / "gone.jpg").symlink_to("later.bin")
    (pictures / "round.jpg").symlink_to("round.jpg")
    assert main(command) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("4 files predicted, 2 failed\n")
    assert "failed: gone.jpg: it is a link to later.bin, which is not there" in printed.err
    assert "failed: round.jpg: Too many levels of symbolic links" in printed.err
    assert "gone.jpg" in (tmp_path / "out" / "failed.csv").read_text()
    shutil.copy(pictures / "0.png", pictures / "later.bin")
    assert main(command) == 1
    expected = "1 files predicted, 4 had been before, 1 failed\n"
    assert capsys.readouterr().out.startswith(expected)
    (pictures / "0.png").unlink()
    (pictures / "0.png").symlink_to("nowhere")  # it was done, and is no file any more
    assert main(command) == 1
    assert "failed: 0.png: it is a link to nowhere" in capsys.readouterr().err


def test_notes_are_shown(command, pictures, capsys):
    frames = [Image.new("L", (30, 30), value) for value in (0, 255)]
    frames[0].save(pictures / "moving.gif", save_all=True, append_images=frames[1:])
    assert main(command) == 0
    assert "note: moving.gif: the first of its frames\n" in capsys.readouterr().err


def test_json_is_all_that_is_printed(command, pictures, tmp_path, capsys):
    (pictures / "text.jpg").write_text("no picture")
    assert main([*command, "--json", "--format", "none"]) == 1
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert "failed" not in printed.err
    assert summary["folder"] == str(tmp_path / "out")
    assert (summary["predicted"], summary["earlier"], summary["notes"]) == (4, 0, {})
    assert list(summary["failed"]) == ["text.jpg"]
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert summary["instances"] == len(found) > 0
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "none.pth"], "none.pth"),
        (["--format", "tiff"], "picture_format must be one of ('png', 'jpg', 'none'), got 'tiff'"),
        (["--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["--score-threshold", "50"], "score_threshold must be from 0 to 1, got 50"),
        ([], "no such file, folder or match: none/*.jpg"),
    ],
)
def test_refused_input_exits_with_2_and_leaves_nothing(
    arguments, message, command, pictures, tmp_path, capsys
):
    if not arguments:
        command[1] = "none/*.jpg"
    before = set(tmp_path.iterdir())
    assert main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_other_settings_exit_with_2(command, capsys):
    assert main(command) == 0
    assert main([*command, "--format", "jpg"]) == 2
    assert "other settings: pictures png (now jpg). Name another folder" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_exits_with_1(command, tmp_path, capsys, monkeypatch):
    def mkdir(path, *args, **kwargs):  # because root may write anywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("pathlib.Path.mkdir", mkdir)
    assert main(command) == 1
    assert "cannot be written to: Permission denied" in capsys.readouterr().err


def test_a_full_disk_exits_with_1_and_the_same_command_goes_on(
    command, tmp_path, capsys, monkeypatch
):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(command) == 1
    message = "out cannot be written to: No space left on device (make room, and the same command"
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.png"))
    assert main(command) == 0


NO_MEMORY = RuntimeError(
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, torch.cuda.OutOfMemoryError, MemoryError, NO_MEMORY], ids=repr
)
def test_an_end_in_between_says_how_to_go_on(error, command, capsys, monkeypatch):
    batch, numbers = Predictor.batch, []

    def end_at_the_third(self, images, **options):
        numbers.append(len(images))
        if len(numbers) == 3:
            raise error
        return batch(self, images, **options)

    monkeypatch.setattr(Predictor, "batch", end_at_the_third)
    assert main([*command, "--batch-size", "1"]) == (130 if error is KeyboardInterrupt else 1)
    assert "the same command goes on" in capsys.readouterr().err
    assert main([*command, "--batch-size", "1"]) == 0
    assert capsys.readouterr().out.startswith("2 files predicted, 2 had been before, 0 failed")


@pytest.mark.slow
def test_ctrl_c_ends_a_real_process(command, pictures, tmp_path, capsys):
    random = np.random.default_rng(0)
    for i in range(100):
        Image.fromarray(random.integers(0, 256, (40, 56, 3), np.uint8)).save(pictures / f"_{i}.png")
    journal = tmp_path / "out" / JOURNAL
    process = start(["-m", "resnest_d2.cli", *command], tmp_path / "log")
    wait_for(lambda: journal.exists() and journal.stat().st_size > 5000, process, tmp_path / "log")
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=30) == 130
    assert "interrupted (the same command goes on)" in (tmp_path / "log").read_text()
    assert main(command) == 0


@pytest.mark.parametrize("wanted", [True, False])
def test_the_bar_is_shown_on_a_terminal_unless_quiet(wanted, command, capsys, monkeypatch):
    shown = []

    def bar(items, **kwargs):
        shown.append(kwargs)
        return tqdm(items, disable=True)

    monkeypatch.setattr(progress, "tqdm", bar)
    assert main(command if wanted else [*command, "--quiet"]) == 0
    assert (shown[0]["disable"], shown[0]["total"]) == (None if wanted else True, 4)


def test_help_explains_results_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as info:
        main(["predict", "--help"])
    assert info.value.code == 0
    text = capsys.readouterr().out
    for word in ("Exit codes: 0", "predictions.json", "failed.csv", "Examples:", "goes on", "**"):
        assert word in text, word

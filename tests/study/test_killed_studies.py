"""A study that is killed and moved ends with the weights and metrics of one that was not."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from class_sets import ITERATIONS, write_class_set
from runs import SMALL_NETWORK

from resnest_d2.study import read_study, run_study

pytestmark = pytest.mark.slow

RUNS = ("small/1", "wide/1", "small/2", "wide/2")


def _write_study(folder: Path) -> Path:
    write_class_set(folder)
    words = [*SMALL_NETWORK, *ITERATIONS, "SOLVER.WARMUP_ITERS", "4", "SOLVER.MAX_ITER", "12"]
    words += ["SOLVER.CHECKPOINT_PERIOD", "4", "SOLVER.IMS_PER_BATCH", "4"]
    words += ["RESNEST.CLASSIFIER.TRAIN_SIZE", "32", "RESNEST.CLASSIFIER.TEST_SIZE", "32"]
    keys = "".join(f"  {k}: '{v}'\n" for k, v in zip(words[::2], words[1::2], strict=True))
    file = folder / "study.yaml"
    file.write_text(
        "options: {config-file: classify_resnest50, train-images: train, val-images: val}\n"
        f"keys:\n{keys}"
        "groups:\n  small: {}\n  wide: {keys: {MODEL.RESNETS.WIDTH_PER_GROUP: 16}}\n"
        "seeds: [1, 2]\n"
    )
    return file


def _kill(file: Path, reached: Callable[[Path], bool]) -> None:
    """Run the study, and kill it with its training as soon as a run's folder is as wanted."""
    command = [sys.executable, "-m", "resnest_d2.cli", "study", str(file)]
    process = subprocess.Popen(command, start_new_session=True)
    out = file.with_suffix("")
    while not any(reached(out / name) for name in RUNS):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_it_is_killed_in_training_in_evaluation_and_between_runs_and_moved(tmp_path):
    whole = _write_study(tmp_path / "whole")
    assert run_study(read_study(whole)) == 0

    file = _write_study(tmp_path / "killed")
    evaluated = file.with_suffix("") / "small/1"
    _kill(file, lambda run: (run / "model_0000003.pth").exists())
    assert not (evaluated / "model_final.pth").exists()
    _kill(file, lambda run: (run / "model_final.pth").exists())
    assert not (evaluated / "results.json").exists()
    _kill(file, lambda run: (run / "results.json").exists())
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(file.parent, moved)
    shutil.rmtree(file.parent)
    assert run_study(read_study(moved / file.name)) == 0

    for name in RUNS:
        ours, theirs = (folder / "study" / name for folder in (moved, whole.parent))
        a, b = (torch.load(run / "model_final.pth", weights_only=True) for run in (ours, theirs))
        assert a["model"].keys() == b["model"].keys()
        assert all(torch.equal(a["model"][key], b["model"][key]) for key in a["model"])
        assert (ours / "results.json").read_text() == (theirs / "results.json").read_text()

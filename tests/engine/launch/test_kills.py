"""Training that is killed at random moments ends with the weights of one that was not.

Each run is a process of its own. Half of the kills wait for a checkpoint that is being written.
RESNEST_D2_KILLS says how many kills there are (3 by default); a run that ended before its next one
is compared, and another begins.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from class_sets import ITERATIONS, write_class_set
from label_sets import write_label_set
from mixed_set import write_mixed_set
from runs import SMALL_NETWORK, TINY

from resnest_d2.checkpoint import read_weights
from resnest_d2.checkpoint.folder import choose_checkpoint, run_files
from resnest_d2.checkpoint.resume_changes import recorded_value

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("RESNEST_D2_KILLS", "3"))
TOGETHER = (
    *("RESNEST.EMA.DECAY", "0.9", "RESNEST.ACCUMULATE", "2", "RESNEST.AMP_DTYPE", "bfloat16"),
    *("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"),
    *("RESNEST.ACTIVATION_CHECKPOINTING", "('res2', 'res3')", "RESNEST.RECOMPUTE_NORM", "True"),
)


def detection(folder: Path) -> list[str]:
    """Arguments of a run: config, data, options."""
    json_file, images = write_mixed_set(folder)
    argv = ["--config-file", "sample_mask_rcnn_resnest14_fpn"]
    argv += ["--train-json", json_file, "--train-images", images]
    argv += ["--val-json", json_file, "--val-images", images, *TINY]
    return [*argv, "INPUT.MIN_SIZE_TRAIN", "(48, 64, 80)"]


def segmentation(folder: Path) -> list[str]:
    data = write_label_set(folder)
    argv = ["--config-file", "deeplabv3_resnest50_ade20k", "--classes", str(data["classes"])]
    for split in ("train", "val"):
        labels, images = data[split]
        argv += [f"--{split}-labels", labels, f"--{split}-images", images]
    argv += [*SMALL_NETWORK, "RESNEST.JITTER.SIZE", "64", "RESNEST.JITTER.CROP", "56"]
    argv += ["MODEL.SEM_SEG_HEAD.CONVS_DIM", "16", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "16"]
    return [*argv, "INPUT.MIN_SIZE_TEST", "64", "MODEL.WEIGHTS", ""]


def classification(folder: Path) -> list[str]:
    data = write_class_set(folder)
    argv = ["--config-file", "classify_resnest50"]
    argv += ["--train-images", data["train"], "--val-images", data["val"], *SMALL_NETWORK]
    argv += ["RESNEST.CLASSIFIER.TRAIN_SIZE", "32", "RESNEST.CLASSIFIER.TEST_SIZE", "32"]
    return [*argv, *ITERATIONS, "SOLVER.WARMUP_ITERS", "4", "RESNEST.CLASSIFIER.CUTMIX", "1.0"]


def start(folder: Path, run, *, processes: int, seed: str, opts) -> subprocess.Popen:
    arguments, options = run[: run.index("MODEL.DEVICE")], run[run.index("MODEL.DEVICE") :]
    argv = ["train", *arguments, "--resume", "--num-gpus", str(processes), *options]
    argv += ["SEED", seed, "DATALOADER.NUM_WORKERS", "2", "SOLVER.MAX_ITER", "20"]
    argv += ["SOLVER.CHECKPOINT_PERIOD", "2", "TEST.EVAL_PERIOD", "5"]
    argv += ["SOLVER.IMS_PER_BATCH", "4", *opts, "OUTPUT_DIR", str(folder)]
    with open(f"{folder}.log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "resnest_d2.cli", *argv],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # with its data workers: a group
        )


def spawned(parent: int) -> list[int]:
    """Training processes that this one has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = status.read_text().rpartition(")")[2].split()
            if (
                int(words[1]) == parent
                and b"spawn_main" in (status.parent / "cmdline").read_bytes()
            ):
                found.append(int(status.parent.name))
        except OSError:
            pass  # it has ended
    return found


def kill(process: subprocess.Popen, folder: Path, draw: random.Random, *, writing: bool) -> bool:
    """Kill the run, or one of its processes, and wait for its end; False where it ended before."""
    began, moment = time.time(), draw.uniform(0, 16)
    while process.poll() is None:
        if writing and list(folder.glob(".model_*.tmp")):
            break
        if not writing and time.time() - began > moment:
            break
        time.sleep(0.005)
    victims = spawned(process.pid) or [process.pid]
    if process.poll() is not None:
        return False
    os.kill(draw.choice(victims), signal.SIGKILL)
    process.wait(60)
    if victims == [process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its data workers
    return True


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize(
    ("task", "processes", "seed", "opts"),
    [
        (detection, 1, "-1", ()),
        (detection, 1, "5", ()),
        (detection, 2, "-1", ()),
        (detection, 1, "-1", TOGETHER),
        (segmentation, 1, "-1", ()),
        (classification, 2, "-1", ("MODEL_EMA.ENABLED", "True")),
    ],
    ids=["drawn-seed", "given-seed", "two-processes", "all-features", "segmentation", "classes"],
)
def test_killed_runs_end_with_the_weights_of_an_uninterrupted_one(
    task, processes, seed, opts, tmp_path
):
    data = task(tmp_path / "data")
    draw = random.Random(0)
    uninterrupted = {}  # folder by seed
    kills = runs = 0
    while kills < KILLS:
        folder = tmp_path / f"killed-{runs}"
        runs += 1
        killed = True
        while killed:
            process = start(folder, data, processes=processes, seed=seed, opts=opts)
            killed = kills < KILLS and kill(process, folder, draw, writing=kills % 2 == 1)
            if killed:
                kills += 1
                require_readable(folder)
        assert process.wait() == 0, Path(f"{folder}.log").read_text()[-3000:]

        ours = torch.load(folder / "model_final.pth", weights_only=True)
        drawn = str(recorded_value(ours["resnest_d2"]["config"], "SEED"))
        if drawn not in uninterrupted:
            uninterrupted[drawn] = whole = tmp_path / f"whole-{drawn}"
            assert start(whole, data, processes=processes, seed=drawn, opts=opts).wait() == 0
        expected = torch.load(uninterrupted[drawn] / "model_final.pth", weights_only=True)
        for entry in ("model", "raw_model"):
            for name, value in expected.get(entry, {}).items():
                assert torch.equal(ours[entry][name], value), f"{entry}: {name}"
    print(f"{kills} kills in {runs} runs, {len(uninterrupted)} seeds: all weights bit-equal")


def require_readable(folder: Path) -> None:
    """Every checkpoint in a run's folder can be read, and one is chosen to go on from."""
    names = run_files(folder) if folder.is_dir() else []
    for name in names:
        if name != "last_checkpoint":
            read_weights(folder / name)
    if names:
        choose_checkpoint(folder)

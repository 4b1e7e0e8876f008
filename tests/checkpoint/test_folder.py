"""A run's folder: its newest checkpoint that can be read, and how many there are."""

import logging
import os
import shutil

import pytest
import torch
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer

from resnest_d2.checkpoint import (
    RunCheckpointer,
    choose_checkpoint,
    find_checkpoint,
    read_checkpoint,
)
from resnest_d2.checkpoint.resume_changes import changed_keys
from resnest_d2.config import get_config


class State:
    """Stands for a trainer: its state is one number."""

    def __init__(self):
        self.number = -1

    def state_dict(self):
        return {"iteration": self.number}

    def load_state_dict(self, state):
        self.number = state["iteration"]


def checkpointer(folder, **kwargs):
    return RunCheckpointer(nn.Linear(64, 64), str(folder), trainer=State(), **kwargs)


def save(saver, iteration, name=None):
    saver.checkpointables["trainer"].number = iteration
    nn.init.constant_(saver.model.weight, iteration)
    saver.save(name or f"model_{iteration:07d}", iteration=iteration)


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of the iterations 1, 3, 5."""
    saver = checkpointer(tmp_path)
    for iteration in (1, 3, 5):
        save(saver, iteration)
    return tmp_path


def resume(folder):
    """The iteration that a run in the folder goes on from."""
    saver = checkpointer(folder)
    saver.resume_or_load("", resume=True)
    iteration = saver.checkpointables["trainer"].number
    assert torch.all(saver.model.weight == iteration)
    return iteration


def flip(path):
    """One bit in the middle of the largest tensor."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def no_state(path):
    torch.save({"model": nn.Linear(64, 64).state_dict(), "iteration": 5}, path)


def not_finite(path):
    stored = torch.load(path, weights_only=True)
    stored["model"]["weight"][3, 3] = float("nan")
    torch.save(stored, path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip, "CRC"),
        (cut, "damaged"),
        (empty, "it is empty"),
        (lambda path: path.unlink(), "it is missing"),
        (no_state, "without trainer"),
        (not_finite, "weight has NaN"),
    ],
)
def test_the_checkpoint_before_a_damaged_one_is_used_and_both_are_named(
    folder, damage, reason, caplog
):
    damage(folder / "model_0000005.pth")
    there = set(os.listdir(folder))
    with caplog.at_level(logging.WARNING):
        assert resume(folder) == 3
    said = "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)
    assert "model_0000005.pth: " in said and reason in said
    assert "In their place: model_0000003.pth" in said
    assert set(os.listdir(folder)) == there  # what is damaged is left where it is
    saver = checkpointer(folder)
    save(saver, 5)  # and its name can be used again
    assert resume(folder) == 5


def test_several_damaged_ones_are_passed_over(folder):
    flip(folder / "model_0000005.pth")
    cut(folder / "model_0000003.pth")
    assert resume(folder) == 1
    assert list(choose_checkpoint(folder).passed_over) == ["model_0000005.pth", "model_0000003.pth"]


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", b"../x.pth", b"model_9.pth"])
def test_the_newest_is_used_where_last_checkpoint_names_none(folder, content):
    last = folder / "last_checkpoint"
    last.unlink() if content is None else last.write_bytes(content)
    assert resume(folder) == 5
    assert len(choose_checkpoint(folder).passed_over) == 1


def test_last_checkpoint_names_no_file_of_another_folder(folder):
    other = folder / "other"
    other.mkdir()
    save(checkpointer(other), 9)
    for name in ("other/model_0000009.pth", str(other / "model_0000009.pth")):
        (folder / "last_checkpoint").write_text(name)
        assert resume(folder) == 5


def test_a_file_that_has_changed_is_read_again_even_if_its_time_has_not(folder):
    path = folder / "model_0000005.pth"
    assert choose_checkpoint(folder).path == path
    time = path.stat().st_mtime_ns
    cut(path)
    os.utime(path, ns=(time, time))
    assert choose_checkpoint(folder).path.name == "model_0000003.pth"


def test_a_pipe_in_place_of_last_checkpoint_is_not_waited_for(folder):
    (folder / "last_checkpoint").unlink()
    os.mkfifo(folder / "last_checkpoint")
    choice = choose_checkpoint(folder)
    assert "not a regular file" in choice.passed_over["last_checkpoint"]


def test_the_one_that_last_checkpoint_names_is_used_though_others_are_newer(folder):
    (folder / "last_checkpoint").write_text("model_0000003.pth")
    assert resume(folder) == 3


def test_final_and_best_count_by_their_iteration(folder):
    save(checkpointer(folder), 2, "model_best")
    save(checkpointer(folder), 9, "model_final")
    (folder / "last_checkpoint").unlink()
    assert resume(folder) == 9
    for name, left in [("model_final", 5), ("model_0000005", 3), ("model_0000003", 2)]:
        cut(folder / f"{name}.pth")
        assert resume(folder) == left


def test_where_none_can_be_read_all_are_named_and_nothing_begins_anew(folder):
    for iteration in (1, 3, 5):
        cut(folder / f"model_000000{iteration}.pth")
    with pytest.raises(ValueError) as error:
        resume(folder)
    assert all(f"model_000000{iteration}.pth: " in str(error.value) for iteration in (1, 3, 5))


def test_a_folder_whose_checkpoints_are_gone_is_refused(folder):
    for iteration in (1, 3, 5):
        (folder / f"model_000000{iteration}.pth").unlink()
    with pytest.raises(ValueError, match="model_0000005.pth: it is missing"):
        resume(folder)


def test_a_folder_without_a_run_begins_one(tmp_path):
    saver = checkpointer(tmp_path)
    saver.resume_or_load("", resume=True)
    assert saver.checkpointables["trainer"].number == -1
    with pytest.raises(FileNotFoundError, match="holds no training run"):
        find_checkpoint(tmp_path)


def test_prediction_takes_the_newest_that_can_be_read_and_says_so(folder, caplog):
    assert find_checkpoint(folder) == folder / "model_0000005.pth" and not caplog.records
    flip(folder / "model_0000005.pth")
    assert torch.all(read_checkpoint(folder).tensors["weight"] == 3)
    assert "In their place: model_0000003.pth" in caplog.text


def test_the_best_is_found_where_it_is_asked_for(folder):
    assert find_checkpoint(folder, best=True) == folder / "model_0000005.pth"
    save(checkpointer(folder), 3, "model_best")
    assert find_checkpoint(folder, best=True) == folder / "model_best.pth"
    assert find_checkpoint(folder) == folder / "model_0000005.pth"  # and it is not the last one
    cut(folder / "model_best.pth")
    assert find_checkpoint(folder, best=True) == folder / "model_0000005.pth"


def test_an_unchanged_file_is_checked_once(folder, monkeypatch):
    read = []
    inside = "resnest_d2.checkpoint.folder.read_weights"
    from resnest_d2.checkpoint import read_weights

    monkeypatch.setattr(inside, lambda path, **kw: read.append(path) or read_weights(path, **kw))
    for _ in range(3):
        choose_checkpoint(folder)
    assert len(read) == 1
    flip(folder / "model_0000005.pth")
    assert choose_checkpoint(folder).path.name == "model_0000003.pth"


# ---- how many ----


def periodic(folder):
    return sorted(int(p.stem[6:]) for p in folder.glob("model_0*.pth"))


def test_the_last_ones_are_kept_also_after_a_resume(tmp_path):
    saver = checkpointer(tmp_path, keep=2)
    for iteration in (1, 3, 5):
        save(saver, iteration)
    assert periodic(tmp_path) == [3, 5]
    saver = checkpointer(tmp_path, keep=2)
    save(saver, 7)
    assert periodic(tmp_path) == [5, 7]
    save(saver, 8, "model_best")
    save(saver, 9, "model_final")
    assert {"model_best.pth", "model_final.pth"} < set(os.listdir(tmp_path))
    assert resume(tmp_path) == 9


def test_nothing_is_removed_before_the_new_one_is_written(tmp_path, monkeypatch):
    saver = checkpointer(tmp_path, keep=1)
    save(saver, 1)

    def full(*args):
        assert periodic(tmp_path) == [1]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save(saver, 3)
    assert periodic(tmp_path) == [1]


def test_zero_keeps_all_and_a_users_files_always_stay(tmp_path):
    saver = checkpointer(tmp_path)
    for iteration in range(7):
        save(saver, iteration)
    assert periodic(tmp_path) == list(range(7))
    (tmp_path / "model_12.pth").touch()
    (tmp_path / "model_0000001_copy.pth").touch()
    save(checkpointer(tmp_path, keep=1), 7)
    found = {"last_checkpoint", "model_0000007.pth", "model_12.pth", "model_0000001_copy.pth"}
    assert set(os.listdir(tmp_path)) == found


def test_a_run_that_goes_back_does_not_lose_what_it_saves(folder):
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    save(checkpointer(folder, keep=1), 2)
    assert periodic(folder) == [2, 3, 5]
    assert resume(folder) == 2


# ---- compatible ----


def test_stock_detectron2_loads_and_resumes_it(folder):
    stock = DetectionCheckpointer(nn.Linear(64, 64), str(folder), trainer=State())
    stock.resume_or_load("", resume=True)
    assert stock.checkpointables["trainer"].number == 5
    assert torch.all(stock.model.weight == 5)


def test_a_moved_folder_is_resumed(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp("x") / "moved"
    shutil.move(folder, moved)
    assert resume(moved) == 5


# ---- changed configs ----


def test_changed_keys_are_listed_with_both_values():
    before = get_config("mask_rcnn_resnest50_fpn", ["OUTPUT_DIR", "a", "SEED", "5"])
    now = before.clone()
    now.merge_from_list(["OUTPUT_DIR", "b", "SOLVER.BASE_LR", "0.5", "INPUT.MIN_SIZE_TEST", "100"])
    now.RESNEST.NEW_KEY = 3
    assert changed_keys(before.dump(), now.dump()) == [
        ("INPUT.MIN_SIZE_TEST", before.INPUT.MIN_SIZE_TEST, 100),
        ("SOLVER.BASE_LR", before.SOLVER.BASE_LR, 0.5),
    ]
    now.SEED = -1
    assert "SEED" not in dict((key, new) for key, _, new in changed_keys(before.dump(), now.dump()))
    now.SEED = 6
    assert ("SEED", 5, 6) in changed_keys(before.dump(), now.dump())
    for broken in (None, "", "- a", "a: [", "!!python/object:x {}"):
        assert changed_keys(broken, now.dump()) == []

"""Files are written whole or not at all, and a full disk is said."""

import contextlib
import errno
import os
import re
import resource
import signal
import stat

import pytest
import torch
from torch import nn

from resnest_d2.checkpoint import RunCheckpointer, read_weights, write_weights
from resnest_d2.files import write_text, writing


@contextlib.contextmanager
def small_files():
    """No file of this process can grow above 64 KiB: the system's error, as on a full disk.

    Not as a fixture: the test runner's own output may be a file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), writing(path, "w") as file:
        file.write("new")
        assert path.read_text() == "old" and len(os.listdir(tmp_path)) == 2
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []

    def fsync(descriptor):
        status = os.fstat(descriptor)
        order.append("folder" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} bytes")

    monkeypatch.setattr(os, "fsync", fsync)
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("replace"), replace(*names)))
    with writing(tmp_path / "file") as file:
        file.write(b"1234")
    assert order == ["4 bytes", "replace", "folder"]
    order.clear()
    write_text(str(tmp_path / "text"), "12345")
    assert order[:2] == ["5 bytes", "replace"]


def test_a_full_disk_is_one_error_and_the_checkpoint_before_is_intact(tmp_path):
    model = nn.Linear(8, 8)
    checkpointer = RunCheckpointer(model, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    large = RunCheckpointer(nn.Linear(512, 512), str(tmp_path))
    with small_files(), pytest.raises(OSError) as error:
        large.save("model_0000003", iteration=3)
    message = str(error.value)
    assert f"{tmp_path}/model_0000003.pth is not written: " in message
    assert re.search(r"[\d.,]+ MiB free in ", message)
    assert "model_0000001.pth, saved before, is intact" in message and "--resume" in message
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    torch.testing.assert_close(
        read_weights(tmp_path / "model_0000001.pth").tensors, dict(model.state_dict())
    )


def test_a_full_disk_leaves_no_converted_weights(tmp_path):
    for suffix in ("pth", "safetensors"):
        with small_files(), pytest.raises(OSError):
            write_weights({"x": torch.zeros(1 << 16)}, tmp_path / f"w.{suffix}")
    assert os.listdir(tmp_path) == []


def test_the_first_checkpoint_on_a_full_disk_says_that_there_is_none(tmp_path, monkeypatch):
    def full(*args):
        raise RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="PytorchStreamWriter.*Nothing was saved before"):
        RunCheckpointer(nn.Linear(2, 2), str(tmp_path)).save("model_0000001", iteration=1)
    assert os.listdir(tmp_path) == []


def test_an_error_that_is_no_writers_is_not_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", lambda *args: (_ for _ in ()).throw(RuntimeError("CUDA")))
    with pytest.raises(RuntimeError, match="CUDA"):
        RunCheckpointer(nn.Linear(2, 2), str(tmp_path)).save("model_0000001")


def test_the_name_of_the_last_checkpoint_is_replaced_whole(tmp_path, monkeypatch):
    checkpointer = RunCheckpointer(nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    replace = os.replace

    def refuse(source, target):
        if os.path.basename(target) == "last_checkpoint":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        checkpointer.save("model_0000003", iteration=3)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_leftovers_of_a_killed_run_go_and_a_users_files_stay(tmp_path):
    leftovers = [".model_0000003.pth.77.tmp", ".last_checkpoint.77.tmp", ".model_final.pth.1.tmp"]
    others = [".model.pth.77.tmp", "model_0000003.pth.tmp", ".notes.tmp", "x.tmp"]
    for name in leftovers + others:
        (tmp_path / name).touch()
    RunCheckpointer(nn.Linear(2, 2), str(tmp_path)).save("model_0000005", iteration=5)
    assert set(os.listdir(tmp_path)) == {*others, "last_checkpoint", "model_0000005.pth"}

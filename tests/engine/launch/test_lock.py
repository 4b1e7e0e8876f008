"""Two trainings never write into one folder at once."""

import errno
import logging
import os
import signal
import subprocess
import sys

import pytest
from commands import finish, wait_for
from runs import tiny_request

from resnest_d2.data import sample_set
from resnest_d2.engine import RunRequest, Trainer, prepare, run
from resnest_d2.engine.launch import lock
from resnest_d2_command import main

HOLDER = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    return sample_set(folder, image_size=64, train_images=2, val_images=1)


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A folder that another process trains in, and that process."""
    monkeypatch.setattr(lock, "_PATIENCE", 0)
    folder, log = tmp_path / "run", tmp_path / "log"
    folder.mkdir()
    (folder / ".training").write_text("process 7 on node-3, since 2026-01-01 10:00:00")
    command = [sys.executable, "-c", HOLDER, folder / ".training.lock"]
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file)
    wait_for(lambda: "held" in log.read_text(), process, log)
    yield folder, process
    process.kill()
    finish(process)


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_second_training_is_refused_and_told_who_trains(resume, held, data, capsys):
    folder, _ = held
    before = sorted(folder.iterdir())
    words = ["--train-json", data["train"][0], "--train-images", data["train"][1], *resume]
    opts = tiny_request(data, folder).opts
    config = ["--config-file", "sample_mask_rcnn_resnest14_fpn"]
    assert main(["train", *config, *words, *opts]) == 2
    message = capsys.readouterr().err
    assert f"OUTPUT_DIR {folder} is in use: process 7 on node-3, since 2026-01-01" in message
    assert sorted(folder.iterdir()) == before


def test_evaluation_is_not_kept_out_and_a_killed_run_leaves_no_lock(held, data):
    folder, process = held
    with lock.locked("OUTPUT_DIR", str(folder), RunRequest("config", eval_only=True)):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    prepare(tiny_request(data, folder, val=()))
    with lock.locked("OUTPUT_DIR", str(folder), RunRequest("config")):
        assert str(os.getpid()) in (folder / ".training").read_text()


def test_folder_is_locked_while_it_is_trained_in_and_free_after_it(data, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE", 0)
    request = tiny_request(data, tmp_path, "SOLVER.MAX_ITER", "1", val=())
    step, refused = Trainer.run_step, []

    def second(self):
        with pytest.raises(FileExistsError, match=f"process {os.getpid()} on .* trains there"):
            prepare(request)
        refused.append(self.iter)
        step(self)

    monkeypatch.setattr(Trainer, "run_step", second)
    run(request)
    assert refused == [0]
    assert not (tmp_path / ".training").exists()
    prepare(tiny_request(data, tmp_path, resume=True))


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")]
)
def test_file_system_without_locks_is_warned_of_and_trained_on(
    error, tmp_path, monkeypatch, caplog
):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(lock, "FileLock", refuse)
    with caplog.at_level(logging.WARNING):
        with lock.locked("OUTPUT_DIR", str(tmp_path), RunRequest("config")):
            pass
    assert f"OUTPUT_DIR {tmp_path} cannot be locked" in caplog.text


def test_other_machines_and_processes_leave_the_lock_to_the_first(tmp_path, monkeypatch):
    request = RunRequest("config", num_machines=2, machine_rank=1, dist_url="tcp://a:1")
    with lock.locked("OUTPUT_DIR", str(tmp_path), request):
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(lock, "process_rank", lambda: 1)
    with lock.locked("OUTPUT_DIR", str(tmp_path), RunRequest("config")):
        assert not list(tmp_path.iterdir())

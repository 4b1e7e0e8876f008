"""Signals that come before training does end a command with its code and one line."""

import signal
import subprocess
import sys

import pytest
from commands import PACKAGES, finish, wait_for
from runs import tiny_request
from torch.multiprocessing import ProcessExitedException

from resnest_d2.data import sample_set
from resnest_d2.engine import Plan, RunRequest, Trainer
from resnest_d2.engine.launch import processes
from resnest_d2_command import main

# A package whose import takes long, and makes an error of its own of what a handler raises.
SLOW_IMPORT = """
import time
print("importing", flush=True)
try:
    time.sleep(60)
except BaseException as error:
    raise ImportError("numpy.core failed to import") from error
"""
ENTRY = """
import sys
sys.path[:0] = [{slow!r}, {packages!r}]
from resnest_d2_command import main
sys.exit(main())
"""
INTERRUPTED = "resnest-d2: error: interrupted\n"
STOPPED = "resnest-d2: {}: stopped with nothing left to save, with exit code 75. --resume goes on"


@pytest.mark.parametrize(
    ("arguments", "number", "code", "line"),
    [
        (["train"], signal.SIGINT, 130, INTERRUPTED),
        (["zoo", "download", "net"], signal.SIGINT, 130, INTERRUPTED),
        (["train"], signal.SIGTERM, 75, STOPPED.format("SIGTERM")),
        (["train", "--resume"], signal.SIGUSR1, 75, STOPPED.format("SIGUSR1")),
        (["study", "study.yaml"], signal.SIGTERM, 75, "resnest-d2: SIGTERM: the trainings stop"),
        (["train", "--eval-only"], signal.SIGTERM, -signal.SIGTERM, ""),
        (["predict", "a.jpg", "--checkpoint", "a.pth"], signal.SIGTERM, -signal.SIGTERM, ""),
    ],
)
def test_signal_during_the_imports(arguments, number, code, line, tmp_path):
    (tmp_path / "resnest_d2").mkdir()
    (tmp_path / "resnest_d2" / "__init__.py").write_text(SLOW_IMPORT)
    entry = ENTRY.format(slow=str(tmp_path), packages=PACKAGES)
    log = tmp_path / "log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", entry, *arguments],
            stdout=file,
            stderr=file,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    wait_for(lambda: "importing" in log.read_text(), process, log)
    process.send_signal(number)
    assert finish(process, timeout=60) == code
    text = log.read_text().removeprefix("importing\n")
    assert text.startswith(line) and text.count("\n") == (1 if line else 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_before_the_first_iteration(number, tmp_path, monkeypatch, capfd):
    data = sample_set(tmp_path / "shapes", image_size=64, train_images=2, val_images=1)
    words = ["--train-json", data["train"][0], "--train-images", data["train"][1]]
    opts = tiny_request(data, tmp_path / "run").opts
    command = ["train", "--config-file", "sample_mask_rcnn_resnest14_fpn", *words, *opts]
    before = signal.getsignal(number)

    def build(self, cfg):
        signal.raise_signal(number)
        pytest.fail("it went on")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "build_model", build)
        with pytest.raises(SystemExit) as stop:
            main(command)
    assert stop.value.code == 75
    assert STOPPED.format(signal.Signals(number).name) in capfd.readouterr().err
    assert signal.getsignal(number) is before
    assert not list((tmp_path / "run").glob("*.pth"))
    assert main([*command, "SOLVER.MAX_ITER", "1"]) == 0  # the lock is free


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_that_ends_processes_started_here(number, tmp_path, monkeypatch, capfd):
    def launch(*args, **kwargs):
        signal.raise_signal(number)  # passed on to the processes, which it ends
        raise ProcessExitedException("ended", 0, 1, -number, signal.Signals(number).name)

    monkeypatch.setattr(processes, "launch", launch)
    plan = Plan(RunRequest("config", num_processes=2), None, "cpu", ("OUTPUT_DIR", str(tmp_path)))
    with pytest.raises(SystemExit) as stop:
        processes.run_in_processes(None, plan)
    assert stop.value.code == 75
    assert STOPPED.format(signal.Signals(number).name) in capfd.readouterr().err

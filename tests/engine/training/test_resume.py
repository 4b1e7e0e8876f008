"""Runs that are stopped, killed, resumed, or begun from another's weights."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from processes import run_in_processes
from runs import TINY, tiny_request

from detectron2.utils.events import EventWriter

from resnest_d2.checkpoint import RECORD_KEY, RunCheckpointer, read_weights
from resnest_d2.checkpoint.resume_changes import recorded_value
from resnest_d2.data import sample_set
from resnest_d2.engine import Trainer, prepare, run
from resnest_d2.engine.launch.stopping import StopOnSignal
from resnest_d2.engine.training.records import LateWriter, cut_metrics
from resnest_d2_command import main

SHORT = ("SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2", "TEST.EVAL_PERIOD", "2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=4, val_images=1
    )


@pytest.fixture(scope="module")
def request_for(data):
    def build(folder, *opts, **kwargs):
        return tiny_request(data, folder, *SHORT, *opts, **kwargs)

    return build


@pytest.fixture
def no_evaluation(monkeypatch):
    """Evaluations take no time; the iterations after which they were asked for."""
    asked = []

    def evaluate(self):
        asked.append(self.storage.iter)
        self._last_eval_results = {"bbox": {"AP": 1.0}}
        return self._last_eval_results

    monkeypatch.setattr(Trainer, "_evaluate", evaluate)
    return asked


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture(scope="module")
def finished(request_for, tmp_path_factory):
    """A run's folder, with the seed drawn."""
    folder = tmp_path_factory.mktemp("finished")
    run(request_for(folder, "SEED", "-1", val=()))
    return folder


def clone(folder, target):
    target.mkdir(exist_ok=True)
    for file in folder.iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    return target


def checkpoint(path):
    return torch.load(path, weights_only=True)


def seed_of(path):
    return recorded_value(checkpoint(path)[RECORD_KEY]["config"], "SEED")


def test_other_number_of_classes_names_init_from(finished, data, tmp_path):
    folder = clone(finished, tmp_path / "run")
    content = json.loads(Path(data["train"][0]).read_text())
    content["categories"].append({"id": 9, "name": "heart"})
    (tmp_path / "six.json").write_text(json.dumps(content))
    train = ((str(tmp_path / "six.json"), data["train"][1]),)
    request = tiny_request(data, folder, *SHORT, train=train, val=(), resume=True)
    with pytest.raises(
        ValueError, match=r"is for 5 classes, the model for 6: .*--init-from \S+run"
    ):
        prepare(request)


# ---- seeds ----


def test_a_drawn_seed_is_in_the_log_the_config_and_every_checkpoint(finished):
    seed = seed_of(finished / "model_final.pth")
    assert seed >= 0 and seed == seed_of(finished / "model_0000001.pth")
    assert recorded_value((finished / "config.yaml").read_text(), "SEED") == seed
    assert f"SEED {seed} is drawn" in (finished / "log.txt").read_text()


def test_two_runs_draw_two_seeds_and_a_resumed_one_keeps_its_own(
    finished, request_for, tmp_path, no_evaluation, log
):
    folder = clone(finished, tmp_path)
    seed = seed_of(folder / "model_final.pth")
    run(request_for(folder, "SEED", "-1", "SOLVER.MAX_ITER", "5", resume=True, val=()))
    assert seed_of(folder / "model_final.pth") == seed
    assert "  SEED: " not in log.text
    run(request_for(tmp_path / "other", "SEED", "-1", "SOLVER.MAX_ITER", "1", val=()))
    assert seed_of(tmp_path / "other" / "model_final.pth") != seed


def test_a_run_that_was_killed_before_its_first_checkpoint_keeps_its_seed(
    request_for, tmp_path, finished
):
    (tmp_path / "config.yaml").write_bytes((finished / "config.yaml").read_bytes())
    (tmp_path / "metrics.json").write_text('{"iteration": 1}\n')
    run(request_for(tmp_path, "SEED", "-1", "SOLVER.MAX_ITER", "1", resume=True, val=()))
    assert seed_of(tmp_path / "model_final.pth") == seed_of(finished / "model_final.pth")


# ---- resuming ----


def test_a_finished_run_is_evaluated_again_and_nothing_is_left_to_train(
    finished, request_for, tmp_path, no_evaluation, log
):
    folder = clone(finished, tmp_path)
    before = (folder / "model_final.pth").read_bytes()
    assert run(request_for(folder, "SEED", "-1", resume=True)) == {"bbox": {"AP": 1.0}}
    assert no_evaluation == [4]
    assert "Resuming at iteration 4: 0 iterations left to train" in log.text
    assert (folder / "model_final.pth").read_bytes() == before


def test_a_damaged_newest_checkpoint_is_passed_over(finished, request_for, tmp_path, log):
    folder = clone(finished, tmp_path)
    for name in ("model_final.pth", "model_0000003.pth"):
        (folder / name).write_bytes((folder / name).read_bytes()[:1000])
    run(request_for(folder, "SEED", "-1", resume=True, val=()))
    said = (folder / "log.txt").read_text()
    assert "model_final.pth: is not a checkpoint" in said
    assert "In their place: model_0000001.pth" in said
    assert "Resuming at iteration 2: 2 iterations left" in said
    for name in ("model_final.pth", "model_0000003.pth"):
        assert checkpoint(folder / name)["iteration"] == 3


def test_a_folder_with_nothing_readable_is_refused_with_all_names(finished, request_for, tmp_path):
    folder = clone(finished, tmp_path)
    for file in folder.glob("model_*.pth"):
        file.write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError) as error:
        prepare(request_for(folder, resume=True))
    for name in ("model_final.pth", "model_0000001.pth", "model_0000003.pth"):
        assert f"{name}: " in str(error.value)


def test_evaluation_with_resume_takes_the_newest_readable(finished, request_for, tmp_path, log):
    folder = clone(finished, tmp_path)
    (folder / "model_final.pth").write_bytes(b"")
    run(request_for(folder, resume=True, eval_only=True))
    assert "In their place: model_0000003.pth" in log.text


def test_changed_keys_are_said_and_the_run_goes_on(
    finished, request_for, tmp_path, no_evaluation, log
):
    folder = clone(finished, tmp_path)
    opts = ("SEED", "9", "SOLVER.MAX_ITER", "5", "SOLVER.BASE_LR", "0.0001")
    run(request_for(folder, *opts, resume=True, val=()))
    (said,) = [r.getMessage() for r in log.records if "config has changed" in r.getMessage()]
    seed = seed_of(finished / "model_final.pth")
    for line in (f"  SEED: {seed} -> 9", "  SOLVER.MAX_ITER: 4 -> 5", "  SOLVER.BASE_LR: 0."):
        assert f"\n{line}" in said
    assert "OUTPUT_DIR" not in said and said.count(" -> ") == 3
    assert "--init-from" in said  # for the rate, which an optimiser's state fixes
    assert checkpoint(folder / "model_final.pth")["iteration"] == 4


def test_an_unchanged_config_is_no_news(finished, request_for, tmp_path, no_evaluation, log):
    run(request_for(clone(finished, tmp_path), "SEED", "-1", resume=True, val=()))
    assert "config has changed" not in log.text


def test_another_optimiser_is_refused(finished, request_for):
    with pytest.raises(ValueError, match="SOLVER.OPTIMIZER is 'SGD' and .*final.pth.*'AdamW'"):
        prepare(request_for(finished, "SOLVER.OPTIMIZER", "SGD", resume=True))


def test_values_of_the_checkpoint_keys_are_checked(request_for, tmp_path):
    for key, value in (("SOLVER.CHECKPOINT_PERIOD", "0"), ("RESNEST.KEEP_CHECKPOINTS", "-1")):
        with pytest.raises(ValueError, match=f"{key} must be at least .*, got {value}"):
            prepare(request_for(tmp_path, key, value))


def test_a_run_keeps_its_last_checkpoints(request_for, tmp_path):
    opts = ("SOLVER.CHECKPOINT_PERIOD", "1", "RESNEST.KEEP_CHECKPOINTS", "2")
    run(request_for(tmp_path, *opts, val=()))
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == [
        "model_0000002.pth",
        "model_0000003.pth",
        "model_final.pth",
    ]


def test_a_checkpoint_restores_optimiser_schedule_and_generator(
    finished, request_for, tmp_path, monkeypatch
):
    folder = clone(finished, tmp_path)
    stored = checkpoint(folder / "model_final.pth")
    assert stored["generators"]["cpu"].dtype == torch.uint8
    trainer = Trainer(prepare(request_for(folder, resume=True, val=())).cfg)
    trainer.resume_or_load(resume=True)
    assert torch.equal(torch.get_rng_state(), stored["generators"]["cpu"])
    assert trainer.scheduler.last_epoch == 4 and trainer.start_iter == 4
    saved = stored["trainer"]["_trainer"]["optimizer"]["state"]
    present = trainer.optimizer.state_dict()["state"]
    assert saved.keys() == present.keys() and saved
    for key, state in saved.items():
        for name, value in state.items():
            torch.testing.assert_close(present[key][name], value, rtol=0, atol=0)


# ---- evaluations that a killed run owes ----


def test_an_evaluation_that_was_not_finished_is_made_up_for(
    request_for, tmp_path, no_evaluation, monkeypatch
):
    evaluate = Trainer._evaluate
    monkeypatch.setattr(Trainer, "_evaluate", lambda self: (_ for _ in ()).throw(KeyError("dead")))
    with pytest.raises(KeyError, match="dead"):
        run(request_for(tmp_path))
    assert checkpoint(tmp_path / "model_0000001.pth")["iteration"] == 1  # saved before it
    monkeypatch.setattr(Trainer, "_evaluate", evaluate)
    assert run(request_for(tmp_path, resume=True)) == {"bbox": {"AP": 1.0}}
    assert no_evaluation == [1, 4]
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert {line["iteration"] for line in lines if "bbox/AP" in line} == {1, 4}


def test_no_evaluation_is_made_up_for_where_none_was_due(
    finished, request_for, tmp_path, no_evaluation
):
    folder = clone(finished, tmp_path)
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    run(request_for(folder, "TEST.EVAL_PERIOD", "3", resume=True))
    assert no_evaluation == [2, 4]


# ---- weights of another run ----


def test_a_run_from_another_ones_weights_begins_at_zero(
    finished, request_for, tmp_path, no_evaluation
):
    run(request_for(tmp_path, "SOLVER.MAX_ITER", "1", init_from=str(finished), val=()))
    stored = checkpoint(tmp_path / "model_final.pth")
    assert stored["iteration"] == 0 and stored["trainer"]["hooks"]["LRScheduler"]["last_epoch"] == 1
    weights = recorded_value(stored[RECORD_KEY]["config"], "MODEL.WEIGHTS")
    assert weights == str(finished / "model_final.pth")
    trainer = Trainer(prepare(request_for(tmp_path / "x", init_from=weights, val=())).cfg)
    trainer.resume_or_load(resume=False)
    assert trainer.start_iter == 0 and not trainer.optimizer.state_dict()["state"]
    expected = checkpoint(weights)["model"]
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, expected[name]), name


def test_a_resumed_run_does_not_look_at_other_weights_and_says_so(
    finished, request_for, tmp_path, no_evaluation, log
):
    folder = clone(finished, tmp_path)
    run(request_for(folder, "SEED", "-1", resume=True, init_from="gone.pth", val=()))
    assert len([r for r in log.records if "--init-from gone.pth is not used" in r.message]) == 1
    assert "config has changed" not in log.text


def test_contradictory_or_missing_weights_are_refused(request_for, tmp_path):
    with pytest.raises(ValueError, match=r"--init-from a.pth and MODEL.WEIGHTS b.pth"):
        prepare(request_for(tmp_path, "MODEL.WEIGHTS", "b.pth", init_from="a.pth"))
    with pytest.raises(ValueError, match="--init-from a.pth starts a training"):
        prepare(request_for(tmp_path, init_from="a.pth", eval_only=True))
    with pytest.raises(FileNotFoundError, match="gone.pth"):
        prepare(request_for(tmp_path, init_from="gone.pth"))
    with pytest.raises(FileNotFoundError, match="holds no training run"):
        prepare(request_for(tmp_path, init_from=str(tmp_path)))


# ---- metrics ----


def test_metrics_after_the_checkpoint_and_broken_lines_are_cut(tmp_path):
    file = tmp_path / "metrics.json"
    kept = ['{"iteration": 19}\n', '{"bbox/AP": 1.0, "iteration": 9}\n']
    file.write_text(kept[0] + '{"iteration": 39}\n{"x": 2}\n' + kept[1] + '{"iteration": 1')
    cut_metrics(file, 20)
    assert file.read_text() == "".join(kept)
    cut_metrics(tmp_path / "none.json", 20)
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_resumed_run_writes_each_iteration_once(finished, request_for, tmp_path, no_evaluation):
    folder = clone(finished, tmp_path)
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    with open(folder / "metrics.json", "a") as file:
        file.write('{"iteration": 9, "total_loss": 3.0}\n{"iteration": 1, "total_')
    run(request_for(folder, "SEED", "-1", resume=True, val=()))
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    iterations = [line["iteration"] for line in lines if "total_loss" in line]
    assert iterations == [1, 3]  # at the evaluation and at the end


@pytest.mark.parametrize("damage", [None, b"PK"])
def test_final_checkpoint_is_written_where_the_first_run_died_before(
    damage, finished, request_for, tmp_path, no_evaluation
):
    folder = clone(finished, tmp_path)
    expected = checkpoint(folder / "model_final.pth")
    (folder / "model_final.pth").unlink()
    if damage is not None:
        (folder / "model_final.pth").write_bytes(damage)
    (folder / "last_checkpoint").write_text("model_0000003.pth")
    run(request_for(folder, "SEED", "-1", resume=True, val=()))
    final = checkpoint(folder / "model_final.pth")
    assert final["iteration"] == expected["iteration"] == 3
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    for name, value in expected["model"].items():
        assert torch.equal(final["model"][name], value), name
    assert list(final) == list(expected)
    written = (folder / "model_final.pth").stat().st_mtime_ns
    run(request_for(folder, "SEED", "-1", resume=True, val=()))
    assert (folder / "model_final.pth").stat().st_mtime_ns == written


# ---- signals ----


def test_a_signal_saves_and_stops_with_its_own_code(request_for, tmp_path, no_evaluation, log):
    previous = signal.getsignal(signal.SIGTERM)
    trainer = Trainer(prepare(request_for(tmp_path, "SOLVER.CHECKPOINT_PERIOD", "100")).cfg)
    step = trainer.run_step

    def signalled():
        step()
        if trainer.iter == 2:
            for _ in range(2):  # the second one changes nothing
                os.kill(os.getpid(), signal.SIGTERM)

    trainer.run_step = signalled
    with pytest.raises(SystemExit) as stop:
        trainer.train()
    assert stop.value.code == 75 and no_evaluation == [1]
    assert signal.getsignal(signal.SIGTERM) is previous
    assert "SIGTERM at iteration 2: saved and stopped, with exit code 75" in log.text
    assert checkpoint(tmp_path / "model_0000002.pth")["iteration"] == 2
    run(request_for(tmp_path, "SOLVER.CHECKPOINT_PERIOD", "100", resume=True))
    assert no_evaluation == [1, 4]
    assert "Resuming at iteration 3: 1 iterations left" in log.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_in_an_evaluation_of_a_saved_state_does_not_wait(
    number, request_for, tmp_path, no_evaluation, monkeypatch
):
    evaluate = Trainer._evaluate

    def signalled(self):
        os.kill(os.getpid(), number)
        pytest.fail("the evaluation went on")

    monkeypatch.setattr(Trainer, "_evaluate", signalled)
    with pytest.raises(SystemExit) as stop:
        run(request_for(tmp_path))
    assert stop.value.code == 75
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == ["model_0000001.pth"]
    monkeypatch.setattr(Trainer, "_evaluate", evaluate)
    run(request_for(tmp_path, resume=True))
    assert no_evaluation == [1, 4]


def test_a_signal_in_the_last_evaluation_ends_with_the_same_code(
    request_for, tmp_path, monkeypatch
):
    monkeypatch.setattr(Trainer, "_evaluate", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        run(request_for(tmp_path, "SOLVER.MAX_ITER", "1"))
    assert stop.value.code == 75 and (tmp_path / "model_final.pth").is_file()


class Run:
    """What the hook sees of a trainer."""

    iter, max_iter, start_iter = 4, 100, 0


class Saves:
    def __init__(self):
        self.names = []

    def save(self, name, **kwargs):
        self.names.append(name)


def _stopped_by_one(rank):
    saver = Saves()
    hook = StopOnSignal(saver, 50)
    hook.trainer = Run
    hook.before_train()
    codes = []
    for _ in range(2):
        hook.before_step()
        if rank == 1 and codes:
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            hook.after_step()
            codes.append(0)
        except SystemExit as stop:
            codes.append(stop.code)
    hook.restore()
    return {"codes": codes, "names": saver.names}


def test_all_processes_stop_at_the_iteration_in_which_one_has_the_signal(tmp_path):
    for result in run_in_processes(_stopped_by_one, tmp_path):
        assert result == {"codes": [0, 75], "names": ["model_0000004"]}


# ---- a full disk ----


def test_a_full_disk_ends_with_one_message_and_resumes(
    data, tmp_path, no_evaluation, monkeypatch, capsys
):
    save = torch.save

    def full(stored, file):
        if stored["iteration"] > 1:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(stored, file)

    monkeypatch.setattr(torch, "save", full)
    argv = ["train", "--config-file", "sample_mask_rcnn_resnest14_fpn", "--resume"]
    for split in ("train", "val"):
        argv += [f"--{split}-json", str(data[split][0]), f"--{split}-images", str(data[split][1])]
    argv += [*TINY, *SHORT, "OUTPUT_DIR", str(tmp_path)]
    assert main(argv) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/model_0000003.pth is not written: No space left on device (" in said
    assert "model_0000001.pth, saved before, is intact" in said
    assert sorted(p.name for p in tmp_path.glob("*model*")) == ["model_0000001.pth"]
    monkeypatch.setattr(torch, "save", save)
    assert main(argv) == 0
    assert checkpoint(tmp_path / "model_final.pth")["iteration"] == 3


def test_metrics_that_cannot_be_written_are_said_once_and_end_nothing(tmp_path, log):
    class Full(EventWriter):
        def write(self):
            raise OSError(28, "No space left on device")

        close = write

    writer = LateWriter(Full, tmp_path, "metrics.json")
    for _ in range(3):
        writer.write()
    writer.close()
    assert [r.message for r in log.records] == [
        f"metrics.json in {tmp_path}: not written, [Errno 28] No space left on device. Training "
        "goes on"
    ]


def test_metrics_are_not_begun_on_a_disk_that_is_almost_full(tmp_path, monkeypatch, log):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    LateWriter(lambda: pytest.fail("begun"), tmp_path, "events").write()
    assert "No space left" in log.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_log_on_a_full_disk_says_so_once_and_leaves_no_traceback(tmp_path):
    code = """
import logging
from resnest_d2.engine.training.records import protected_log_files, show_log
with protected_log_files():
    show_log("FOLDER")
for number in range(3):
    logging.getLogger("resnest_d2").info("message %d", number)
"""
    (tmp_path / "log.txt").symlink_to("/dev/full")
    code = code.replace("FOLDER", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("message") == 3
    assert done.stderr.count("is not written any more") == 1 and "Traceback" not in done.stderr


# ---- kills ----

KILLED = """
import os, signal, sys
import torch
from resnest_d2.checkpoint import RunCheckpointer
from resnest_d2.engine.training.steps import TrainingStep

def die(): os.kill(os.getpid(), signal.SIGKILL)
where = sys.argv.pop(1)
if where == "step":
    step = TrainingStep.run_step
    TrainingStep.run_step = lambda self: die() if self.iter == 3 else step(self)
elif where == "writing":
    save = torch.save
    def half(stored, file):
        if stored.get("iteration") == 3:
            file.write(b"PK")
            file.flush()
            die()
        save(stored, file)
    torch.save = half
elif where == "naming":
    tag = RunCheckpointer.tag_last_checkpoint
    def name(self, last): die() if "3" in last else tag(self, last)
    RunCheckpointer.tag_last_checkpoint = name
from resnest_d2_command import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_kills_leave_a_readable_folder_and_the_run_resumes(data, tmp_path):
    argv = ["train", "--config-file", "sample_mask_rcnn_resnest14_fpn", "--resume"]
    argv += ["--train-json", str(data["train"][0]), "--train-images", str(data["train"][1])]
    argv += [*TINY, *SHORT, "OUTPUT_DIR", str(tmp_path)]

    def go(where):
        command = [sys.executable, "-c", KILLED, where, *argv]
        return subprocess.run(command, capture_output=True, text=True)

    for where in ("step", "writing", "naming"):
        done = go(where)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert bool(list(tmp_path.glob(".model_*.tmp"))) == (where == "writing")
        for file in tmp_path.glob("model_*.pth"):
            read_weights(file)
        assert RunCheckpointer.has_last(str(tmp_path))
    assert Path(tmp_path, "model_0000003.pth").is_file()  # it has no name yet
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    done = go("nowhere")
    assert done.returncode == 0, done.stderr
    assert checkpoint(tmp_path / "model_final.pth")["iteration"] == 3
    assert not list(tmp_path.glob(".*.tmp"))

"""An interrupted run's data and random numbers: as if it had not been interrupted."""

import multiprocessing
import os
import shutil
import signal

import pytest
import torch
from mixed_set import write_mixed_set
from processes import run_in_processes
from runs import TINY
from torch import nn

from detectron2.data import DatasetCatalog
from detectron2.engine import TrainerBase

from resnest_d2.data import DataWorkerError, TrainLoader
from resnest_d2.engine import RunRequest, Trainer, prepare, run
from resnest_d2.engine.training.hooks import FreezeNorm, RepeatablePreciseBN, SeedIterations
from resnest_d2_command import main

CONFIG = "sample_mask_rcnn_resnest14_fpn"
OPTS = (
    *TINY,
    *("INPUT.MIN_SIZE_TRAIN", "(48, 56, 64)", "SOLVER.CHECKPOINT_PERIOD", "3"),
    *("SOLVER.MAX_ITER", "6", "MODEL.ROI_HEADS.NUM_CLASSES", "2"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_mixed_set(tmp_path_factory.mktemp("mixed"))


def run_in(folder, data, *opts, **kwargs):
    return run(RunRequest(CONFIG, (*OPTS, "OUTPUT_DIR", str(folder), *opts), (data,), **kwargs))


def weights(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


def restarted_at_3(finished, folder):
    """A run's folder as it was after 3 iterations."""
    folder.mkdir()
    shutil.copy(finished / "model_0000002.pth", folder)
    (folder / "last_checkpoint").write_text("model_0000002.pth")
    return folder


@pytest.mark.parametrize(
    "opts, kwargs",
    [
        pytest.param(("DATALOADER.NUM_WORKERS", "2"), {}, id="workers"),
        pytest.param(
            ("SOLVER.IMS_PER_BATCH", "4", "RESNEST.ACCUMULATE", "2"), {}, id="accumulating"
        ),
        pytest.param(
            ("TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2")
            + ("TEST.EVAL_PERIOD", "2", "DATALOADER.NUM_WORKERS", "2"),
            {"evaluates": True},
            id="precise-bn",
        ),
        *(
            pytest.param(
                ("RESNEST.FREEZE_NORM.ITER", iteration, "RESNEST.FREEZE_NORM.NUM_BATCHES", "2"),
                {},
                id=f"freeze-norm-at-{iteration}",
            )
            for iteration in "234"  # before, at and after the interruption
        ),
    ],
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(data, tmp_path, opts, kwargs):
    val = (data,) if kwargs else ()
    whole = tmp_path / "whole"
    run_in(whole, data, *opts, val=val)
    resumed = restarted_at_3(whole, tmp_path / "resumed")
    run_in(resumed, data, *opts, val=val, resume=True)
    expected, actual = weights(whole)["model"], weights(resumed)["model"]
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


@pytest.mark.slow
def test_two_processes_resume_as_one_does(data, tmp_path):
    opts = ("SOLVER.IMS_PER_BATCH", "4", "DATALOADER.NUM_WORKERS", "2")
    whole = tmp_path / "whole"
    run_in(whole, data, *opts, num_processes=2)
    resumed = restarted_at_3(whole, tmp_path / "resumed")
    run_in(resumed, data, *opts, num_processes=2, resume=True)
    found = weights(resumed)["model"]
    for name, value in weights(whole)["model"].items():
        assert torch.equal(found[name], value), name


def test_the_number_of_workers_does_not_change_a_run(data, tmp_path):
    results = []
    for workers in ("0", "2"):
        run_in(tmp_path / workers, data, "DATALOADER.NUM_WORKERS", workers)
        results.append(weights(tmp_path / workers)["model"])
    for name, value in results[0].items():
        assert torch.equal(results[1][name], value), name


def test_a_resumed_trainer_starts_its_workers_once_and_where_it_stopped(
    data, tmp_path, monkeypatch
):
    starts = []
    original = TrainLoader.__iter__
    monkeypatch.setattr(
        TrainLoader,
        "__iter__",
        lambda self: starts.append(self._batches.start) or original(self),
    )
    whole = tmp_path / "whole"
    opts = ("SOLVER.IMS_PER_BATCH", "4", "RESNEST.ACCUMULATE", "2")
    run_in(whole, data, *opts)
    run_in(restarted_at_3(whole, tmp_path / "resumed"), data, *opts, resume=True)
    assert starts == [0, 6]


# ---- Hooks ----


class _Recorder(TrainerBase):
    """Draws a number in each step."""

    def __init__(self, *hooks):
        super().__init__()
        self.drawn = []
        self.register_hooks(list(hooks))

    def run_step(self):
        self.drawn.append(torch.rand(4))


def test_an_iterations_random_numbers_do_not_depend_on_what_came_before():
    whole, late, other = _Recorder(SeedIterations(3)), _Recorder(SeedIterations(3)), None
    whole.train(0, 6)
    torch.rand(7)
    late.train(4, 6)
    assert torch.equal(torch.stack(whole.drawn[4:]), torch.stack(late.drawn))
    assert len({tuple(numbers.tolist()) for numbers in whole.drawn}) == 6
    other = _Recorder(SeedIterations(4))
    other.train(4, 6)
    assert not torch.equal(other.drawn[0], late.drawn[0])


def draws_of_a_rank(rank):
    trainer = _Recorder(SeedIterations(3))
    trainer.train(0, 3)
    return torch.stack(trainer.drawn)


def test_each_process_draws_other_numbers(tmp_path):
    first, second = run_in_processes(draws_of_a_rank, tmp_path)
    assert not set(first.flatten().tolist()) & set(second.flatten().tolist())


def _norm_model():
    model = nn.Sequential(nn.BatchNorm1d(2))
    return model.train()


def test_precise_statistics_are_those_of_the_same_batches_each_time():
    batches = [torch.randn(8, 2) for _ in range(4)]
    model = _norm_model()
    hook = RepeatablePreciseBN(1, model, batches, 2)
    for _ in range(3):
        hook.update_stats()
        torch.testing.assert_close(model[0].running_mean, torch.cat(batches[:2]).mean(0))


def test_fixed_statistics_stay_fixed_and_are_not_recomputed_after_a_resume():
    model = _norm_model()
    statistics = model[0].running_mean.clone()
    trainer = _Recorder(FreezeNorm(2, model, [], 1))  # no batch: recomputing would fail
    trainer.train(3, 5)
    assert not model[0].training
    assert torch.equal(model[0].running_mean, statistics)


def fixed_statistics_of_a_rank(rank):
    """Of a process's own images, and what all processes then normalise with."""
    batches = [3 * rank + (1 + rank) * torch.randn(8, 2) for _ in range(2)]
    model = _norm_model()
    RepeatablePreciseBN(0, model, batches, 2).update_stats()
    own = {name: value.clone() for name, value in model[0].named_buffers()}
    trainer = _Recorder(FreezeNorm(0, model, batches, 2))
    trainer.train(0, 1)
    return own, dict(model[0].named_buffers())


def test_fixed_statistics_are_the_mean_over_all_processes(tmp_path):
    (first, ours), (second, theirs) = run_in_processes(fixed_statistics_of_a_rank, tmp_path)
    for name in ("running_mean", "running_var"):
        assert (first[name] - second[name]).abs().min() > 0.5
        mean = (first[name] + second[name]) / 2
        torch.testing.assert_close(ours[name], mean)
        torch.testing.assert_close(theirs[name], mean)


# ---- The trainer and the command ----


def test_a_trainer_takes_any_loader(data, tmp_path, caplog):
    class OwnTrainer(Trainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return list(Own.batches)

    class Own:
        batches = ()

    request = RunRequest(CONFIG, (*OPTS, "OUTPUT_DIR", str(tmp_path)), (data,))
    cfg = prepare(request).cfg
    loader = iter(Trainer.build_train_loader(cfg))  # Detectron2's way to call it
    Own.batches = [next(loader) for _ in range(2)]
    trainer = OwnTrainer(cfg)
    trainer.start_iter = 4
    trainer.train()
    assert trainer.iter == 6
    assert "list cannot be resumed" in caplog.text


def test_an_unknown_sampler_is_refused_at_start(data, tmp_path):
    opts = (*OPTS, "OUTPUT_DIR", str(tmp_path), "DATALOADER.SAMPLER_TRAIN", "Best")
    with pytest.raises(ValueError, match="DATALOADER.SAMPLER_TRAIN.*'TrainingSampler'.*'Best'"):
        prepare(RunRequest(CONFIG, opts, (data,)))


@pytest.mark.parametrize("workers", [pytest.param("0", marks=pytest.mark.slow), "2"])
def test_the_command_says_which_image_is_gone_and_the_run_goes_on(
    data, tmp_path, monkeypatch, capfd, workers
):
    folder = shutil.copytree(data[1], tmp_path / "images")
    gone = folder / "04.png"
    train = ("--train-json", data[0], "--train-images", str(folder))
    opts = (*OPTS, "OUTPUT_DIR", str(tmp_path / "run"), "DATALOADER.NUM_WORKERS", workers)
    opts += ("SOLVER.MAX_ITER", "12")
    original = SeedIterations.before_step

    def remove(hook):
        if hook.trainer.iter == 3:
            os.remove(gone)
        original(hook)

    with monkeypatch.context() as patch:
        patch.setattr(SeedIterations, "before_step", remove)
        assert main(["train", "--config-file", CONFIG, *train, *opts]) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"resnest-d2: error: {gone} (image id 50) is not there any more")
    shutil.copy(os.path.join(data[1], "04.png"), gone)
    assert main(["train", "--config-file", CONFIG, *train, "--resume", *opts]) == 0
    run_in(tmp_path / "whole", data, "SOLVER.MAX_ITER", "12")
    found = weights(tmp_path / "run")["model"]
    for name, value in weights(tmp_path / "whole")["model"].items():
        assert torch.equal(found[name], value), name


def test_no_data_worker_is_left_when_training_ends(data, tmp_path):
    before = multiprocessing.active_children()
    run_in(tmp_path, data, "DATALOADER.NUM_WORKERS", "2", "SOLVER.MAX_ITER", "2")
    assert multiprocessing.active_children() == before


def test_a_data_worker_that_dies_ends_training_with_its_likely_causes(data, tmp_path, monkeypatch):
    def mapper(cfg):
        main_process = os.getpid()

        def die(record):
            assert os.getpid() != main_process
            os.kill(os.getpid(), signal.SIGKILL)

        return die

    monkeypatch.setattr("resnest_d2.engine.training.trainer.build_train_mapper", mapper)
    with pytest.raises(DataWorkerError, match="DataLoader worker.*DATALOADER.NUM_WORKERS"):
        run_in(tmp_path, data, "DATALOADER.NUM_WORKERS", "1")


@pytest.fixture(autouse=True)
def forget_data_sets():
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)

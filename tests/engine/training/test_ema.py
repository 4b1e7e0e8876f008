"""Averaged weights: what they are, who sees them, and that a resumed run goes on with both."""

import copy
from functools import partial

import pytest
import torch
from fvcore.nn.precise_bn import update_bn_stats
from processes import run_in_processes
from runs import tiny_request
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import CallbackHook
from detectron2.utils.events import EventStorage

from resnest_d2 import Predictor
from resnest_d2.data import sample_set
from resnest_d2.engine import RunRequest, Trainer, prepare, run
from resnest_d2.engine.training.ema import RAW_MODEL, average_of

DECAY = ("RESNEST.EMA.DECAY", "0.75")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    return sample_set(folder, image_size=64, train_images=6, val_images=2)


@pytest.fixture(scope="module")
def request_for(data):
    return partial(tiny_request, data, val=())


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(actual: dict, expected: dict):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def test_average_is_the_weighted_sum_from_the_first_weights_on(request_for, tmp_path):
    trainer = Trainer(prepare(request_for(tmp_path, *DECAY, "SOLVER.MAX_ITER", "3")).cfg)
    expected = state_of(trainer.model)

    def follow(trainer):
        for name, value in trainer.model.state_dict().items():
            whole = not value.is_floating_point()
            expected[name] = value if whole else 0.75 * expected[name] + 0.25 * value

    trainer.register_hooks([CallbackHook(after_step=follow)])
    trainer.train()
    average = trainer.averaged.module.state_dict()
    torch.testing.assert_close(dict(average), expected, rtol=1e-5, atol=1e-7)
    assert average["backbone.bottom_up.stem.conv1_1.norm.num_batches_tracked"] == 3
    assert not any(p.requires_grad for p in trainer.averaged.parameters())


def test_average_is_one_copy_in_the_models_memory_format():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).to(
        memory_format=torch.channels_last
    )
    averaged = average_of(model, 0.9)
    assert averaged.module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not averaged.module[0].weight.is_contiguous()
    model(torch.randn(2, 4, 8, 8))
    averaged.update_parameters(model)
    torch.testing.assert_close(averaged.module[1].running_mean, 0.1 * model[1].running_mean)
    assert averaged.module[1].num_batches_tracked == 1
    names = {name.removeprefix("module.") for name in averaged.state_dict()} - {"n_averaged"}
    assert names == set(model.state_dict())


@pytest.fixture(scope="module")
def trained(request_for, data, tmp_path_factory):
    """A run with averages: its folder, its results and the three kinds of weights."""
    folder = tmp_path_factory.mktemp("ema")
    opts = (*DECAY, "SOLVER.BASE_LR", "0.01", "TEST.EVAL_PERIOD", "1")
    trainer = Trainer(prepare(request_for(folder, *opts, val=(data["val"],))).cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return folder, trainer


def test_checkpoint_has_the_average_as_model_and_the_trained_weights_beside_it(trained):
    folder, trainer = trained
    saved = torch.load(folder / "model_final.pth", weights_only=True)
    assert_same(saved["model"], trainer.averaged.module.state_dict())
    assert_same(saved[RAW_MODEL], trainer.model.state_dict())
    name = "backbone.bottom_up.res5.0.conv3.weight"
    assert not torch.equal(saved["model"][name], saved[RAW_MODEL][name])


def test_evaluation_predictor_and_stock_detectron2_see_the_average(trained, request_for, data):
    folder, trainer = trained
    final = str(folder / "model_final.pth")
    expected = trainer.averaged.module.state_dict()
    assert_same(Predictor(final, device="cpu").model.state_dict(), expected)
    stock = Trainer.build_model(trainer.cfg)
    DetectionCheckpointer(stock).load(final)
    assert_same(stock.state_dict(), expected)
    again = run(request_for(folder, "MODEL.WEIGHTS", final, eval_only=True, val=(data["val"],)))
    assert repr(again) == repr(trainer.results)


def test_evaluation_during_training_is_given_the_average(request_for, data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Trainer, "test", lambda self, cfg, model: seen.append(model) or {})
    opts = (*DECAY, "TEST.EVAL_PERIOD", "1")
    trainer = Trainer(prepare(request_for(tmp_path, *opts, val=(data["val"],))).cfg)
    trainer.train()
    assert seen == 2 * [trainer.averaged.module]


def test_precise_statistics_are_computed_for_what_is_evaluated(request_for, tmp_path):
    opts = ("TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2")
    trainer = Trainer(prepare(request_for(tmp_path, *DECAY, *opts, "SOLVER.MAX_ITER", "1")).cfg)
    trainer.train()
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    name = "backbone.bottom_up.res2.0.conv1.norm.running_var"
    assert (saved[RAW_MODEL][name] >= 0.9).all()  # it starts at 1, and one step was taken
    expected = copy.deepcopy(trainer.averaged.module).train()
    for module in expected.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
    with EventStorage():
        update_bn_stats(expected, trainer._extra_loader(), 2)
    # The heads' statistics are of proposals that are drawn at random.
    for name, value in expected.backbone.named_buffers(prefix="backbone"):
        if name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(saved["model"][name], value)


def test_new_run_from_such_a_checkpoint_starts_from_the_average(trained, request_for, tmp_path):
    folder, trainer = trained
    expected = trainer.averaged.module.state_dict()
    for opts in (DECAY, ()):
        weights = ("MODEL.WEIGHTS", str(folder / "model_final.pth"))
        new = Trainer(prepare(request_for(tmp_path / str(len(opts)), *opts, *weights)).cfg)
        new.resume_or_load(resume=False)
        assert_same(new.model.state_dict(), expected)
        if opts:
            assert_same(new.averaged.module.state_dict(), expected)


def test_resuming_restores_both(trained, request_for):
    folder, trainer = trained
    new = Trainer(prepare(request_for(folder, *DECAY, "SOLVER.MAX_ITER", "4", resume=True)).cfg)
    new.resume_or_load(resume=True)
    assert new.start_iter == 2
    assert_same(new.model.state_dict(), trainer.model.state_dict())
    assert_same(new.averaged.module.state_dict(), trainer.averaged.module.state_dict())


def test_averaging_can_be_switched_on_and_off_when_resuming(trained, request_for, tmp_path):
    folder, trainer = trained
    off = Trainer(prepare(request_for(folder, "SOLVER.MAX_ITER", "4", resume=True)).cfg)
    off.resume_or_load(resume=True)
    assert off.averaged is None
    assert_same(off.model.state_dict(), trainer.model.state_dict())

    run(request_for(tmp_path))
    on = Trainer(prepare(request_for(tmp_path, *DECAY, "SOLVER.MAX_ITER", "4", resume=True)).cfg)
    on.resume_or_load(resume=True)
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    assert_same(on.model.state_dict(), saved)
    assert_same(on.averaged.module.state_dict(), saved)


def _two_processes(rank: int, request: RunRequest) -> dict:
    trainer = Trainer(prepare(request).cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return {
        "average": trainer.averaged.module.state_dict(),
        "raw": trainer.model.module.state_dict(),
    }


def test_average_is_the_same_in_two_processes_that_began_with_other_weights(request_for, tmp_path):
    # Detectron2 seeds each process differently; the distributed wrapper gives all the first's.
    opts = ("MODEL.RESNETS.NORM", "SyncBN", "MODEL.FPN.NORM", "", "SEED", "-1")
    opts += ("MODEL.ROI_MASK_HEAD.NORM", "", "SOLVER.IMS_PER_BATCH", "4")
    request = request_for(tmp_path / "run", *DECAY, *opts, num_processes=2)
    first, second = run_in_processes(_two_processes, tmp_path, request)
    assert_same(first["raw"], second["raw"])
    assert_same(first["average"], second["average"])


TOGETHER = (
    *("RESNEST.EMA.DECAY", "0.9", "RESNEST.ACCUMULATE", "2", "SOLVER.IMS_PER_BATCH", "4"),
    *("RESNEST.AMP_DTYPE", "bfloat16", "RESNEST.CHANNELS_LAST", "True", "SOLVER.BASE_LR", "0.01"),
    *("RESNEST.ACTIVATION_CHECKPOINTING", "('res2', 'res3')", "RESNEST.RECOMPUTE_NORM", "True"),
    *("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.MAX_ITER", "8"),
    *("SOLVER.CHECKPOINT_PERIOD", "4", "RESNEST.FREEZE", "('*.stem.*',)"),
)


@pytest.mark.parametrize("clip", ["norm", "full_model"])
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_all_features_together_resume_bit_equal(
    request_for, tmp_path, monkeypatch, optimizer, clip
):
    opts = (*TOGETHER, "SOLVER.OPTIMIZER", optimizer, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip)
    cfg = prepare(request_for(tmp_path, *opts)).cfg
    loader = iter(Trainer.build_train_loader(cfg))
    batches = [next(loader)[:2] for _ in range(16)]

    def build(cfg, start: int) -> Trainer:
        monkeypatch.setattr(Trainer, "build_train_loader", lambda *args: batches[2 * start :])
        trainer = Trainer(cfg)
        seed = CallbackHook(before_step=lambda trainer: torch.manual_seed(trainer.iter))
        trainer.register_hooks([seed])
        return trainer

    whole = build(cfg, 0)
    whole.resume_or_load(resume=False)
    start = copy.deepcopy(state_of(whole.model))
    whole.train()

    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    torch.manual_seed(99)
    resumed = build(prepare(request_for(tmp_path, *opts, resume=True)).cfg, 4)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 4
    resumed.train()
    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    assert_same(resumed.averaged.module.state_dict(), whole.averaged.module.state_dict())
    name = "backbone.bottom_up.res5.0.conv3.weight"
    assert not torch.equal(start[name], whole.model.state_dict()[name])
    stem = "backbone.bottom_up.stem.conv1_1.weight"
    assert torch.equal(start[stem], whole.model.state_dict()[stem])

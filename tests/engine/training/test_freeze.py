"""Parameters frozen by the patterns of RESNEST.FREEZE."""

import copy
from functools import partial

import pytest
import torch
from runs import TINY, tiny_request
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.utils.events import EventStorage

from resnest_d2.config import get_config
from resnest_d2.data import sample_set
from resnest_d2.engine import Trainer, prepare, run
from resnest_d2.engine.training.freeze import freeze_parameters


@pytest.fixture(scope="module")
def request_for(tmp_path_factory):
    data = sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=4, val_images=2
    )
    return partial(tiny_request, data)


def tiny(*opts):
    return Trainer.build_model(get_config("sample_mask_rcnn_resnest14_fpn", (*TINY, *opts)))


BACKBONE = ("RESNEST.FREEZE", "('backbone.bottom_up.*', '*.mask_head.mask_fcn1.*')")


def test_matched_values_and_statistics_stay_through_steps_and_evaluations(request_for, tmp_path):
    opts = ("TEST.EVAL_PERIOD", "1", "SOLVER.MAX_ITER", "3", *BACKBONE)
    trainer = Trainer(prepare(request_for(tmp_path, *opts)).cfg)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()  # it evaluates after each step, and sets the model to training mode again
    end = trainer.model.state_dict()
    assert list(end) == list(start) == list(tiny().state_dict())
    frozen = [n for n in start if n.startswith("backbone.bottom_up.") or ".mask_fcn1." in n]
    assert any("running_mean" in name for name in frozen)
    for name in frozen:
        assert torch.equal(end[name], start[name]), name
    for name in ("backbone.fpn_output2.norm.running_mean", "backbone.fpn_output2.weight"):
        assert not torch.equal(end[name], start[name])
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    trained = {id(p) for name, p in trainer.model.named_parameters() if name not in frozen}
    assert held == trained


def test_fixed_norms_survive_train_and_copies():
    model = tiny()
    freeze_parameters(model, ["backbone.bottom_up.*"])
    twin = copy.deepcopy(model)
    for each in (model, twin):
        each.eval().train()
        norms = {n: m for n, m in each.named_modules() if isinstance(m, _BatchNorm)}
        for name, norm in norms.items():
            assert norm.training != name.startswith("backbone.bottom_up."), name
    norm = twin.backbone.bottom_up.stem.conv1_1.norm
    assert norm.train() is norm is not model.backbone.bottom_up.stem.conv1_1.norm


def test_norm_of_which_one_parameter_matches_goes_on_with_its_statistics():
    model = tiny()
    freeze_parameters(model, ["*.bias"])
    norm = model.backbone.bottom_up.res2[0].conv1.norm
    assert norm.training and norm.weight.requires_grad and not norm.bias.requires_grad


def test_frozen_outputs_are_those_of_evaluation(request_for, tmp_path):
    """What is trained on a frozen backbone sees what it will see in evaluation."""
    model = tiny()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().backbone.bottom_up(x)
        freeze_parameters(model, ["backbone.bottom_up.*"])
        actual = model.train().backbone.bottom_up(x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("('backbone.bottom_up.stem.*', 'backbonne.*')", "FREEZE: 'backbonne.*'.*Near: backbone.*"),
        ("('backbone.bottomup.res2.*',)", r"Near: .*backbone\.bottom_up\.res2\.\*"),
        ("('backbone',)", r"'backbone' matches no parameter.*Near: backbone\.\*"),
        ("('roi_heads.box_head.fc1.wieght',)", r"Near: .*roi_heads\.box_head\.fc1\.weight"),
        ("('xyzzy*',)", r"Its parts: backbone\.\*, proposal_generator\.\*, roi_heads\.\*"),
        ("('*',)", "leaves no parameter to train"),
        ("('backbone.*', 'proposal_generator.*', 'roi_heads.*')", "leaves no parameter to train"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused_at_start(
    request_for, tmp_path, patterns, message
):
    with pytest.raises(ValueError, match=message):
        prepare(request_for(tmp_path, "RESNEST.FREEZE", patterns))


def test_frozen_weights_without_a_file_are_warned_of(request_for, tmp_path, caplog):
    prepare(request_for(tmp_path, *BACKBONE))
    assert "what RESNEST.FREEZE matches stays random" in caplog.text


def test_it_goes_with_fixed_statistics_of_the_rest_averages_and_checkpoints(request_for, tmp_path):
    opts = "RESNEST.EMA.DECAY 0.5 RESNEST.FREEZE_NORM.ITER 1 RESNEST.FREEZE_NORM.NUM_BATCHES 1"
    stages = ("RESNEST.ACTIVATION_CHECKPOINTING", "('res2', 'res3')")
    run(request_for(tmp_path, *opts.split(), *stages, "RESNEST.FREEZE", "('*.res2.*',)"))
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    name = "backbone.bottom_up.res2.0.conv1.norm.running_mean"
    assert not saved["model"][name].any()  # as it was initialised
    assert saved["model"][name.replace("res2", "res3")].any()


def test_frozen_part_gets_no_gradient_in_a_step(request_for, tmp_path):
    trainer = Trainer(prepare(request_for(tmp_path, *BACKBONE)).cfg)
    with EventStorage():
        trainer.run_step()
    for name, parameter in trainer.model.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), name

"""The start-up report says what a run is about to do, and warns of what makes it useless."""

import re
from functools import partial

import pytest
import torch
from runs import TINY, tiny_request

from detectron2.modeling import build_backbone

from resnest_d2.config import get_config
from resnest_d2.data import TrainingData, sample_set, summarise_training_data
from resnest_d2.engine import RunRequest, Trainer, prepare, run
from resnest_d2.engine.diagnosis.memory_estimate import (
    SavedTensors,
    _saved_by_one_image,
    estimate_memory,
    image_size,
)
from resnest_d2.engine.diagnosis.run_errors import RunError
from resnest_d2.engine.diagnosis.start_report import model_parts
from resnest_d2.engine.diagnosis.traps import find_traps

RATE = get_config("sample_mask_rcnn_resnest14_fpn").SOLVER.BASE_LR


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=6, val_images=3
    )


@pytest.fixture
def request_for(data, tmp_path):
    return partial(tiny_request, data, tmp_path / "run")


def reports(caplog) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "resnest_d2.engine.diagnosis.start_report"
    ]


@pytest.fixture
def logged(caplog):
    caplog.set_level("INFO", logger="resnest_d2.engine.diagnosis.start_report")
    return caplog


def test_run_reports_once_what_it_will_do(request_for, logged, tmp_path):
    run(request_for("SOLVER.MAX_ITER", "3", "RESNEST.FREEZE_NORM.ITER", "2"))
    start, parts, *warnings = reports(logged)
    assert len([text for text in reports(logged) if "Start of training" in text]) == 1
    for words in (
        "2 = 1 process x 1 micro-batch x 2 images",
        f"{RATE / 2:g}, AdamW; scaled from {RATE:g}",
        "3 iterations (1 epoch) of 6 images",
        "none: all are random",
        "RGB, mean [123.68, 116.779, 103.939], std [58.393, 57.12, 57.375]",
        "float32, on cpu",
        "seed                 3",
        "from shapes, for images of 64 x 96",
    ):
        assert words in start
    assert re.search(r"\n  objects +\d+\n", start)
    assert re.search(r"\| stem +\| +2,008 \| +0 \| 3 BN +\| of 2 images until iteration 2", parts)
    assert re.search(r"\| RPN +\| +[\d,]+ \| +0 \| +\|", parts)
    for line in f"{start}\n{parts}".splitlines():
        assert len(line) <= 100
    assert len(warnings) == 1 and "fewer than 4" in warnings[0]
    # the log file of the run has it, too
    assert "Start of training" in (tmp_path / "run" / "log.txt").read_text()


def test_report_counts_matched_weights(request_for, logged, tmp_path):
    run(request_for(val=()))
    weights = str(tmp_path / "run" / "model_final.pth")
    folder = ("OUTPUT_DIR", str(tmp_path / "other"))
    trainer = Trainer(prepare(request_for("MODEL.WEIGHTS", weights, *folder, val=())).cfg)
    trainer.resume_or_load(resume=False)
    logged.clear()
    trainer.train()
    (line,) = re.findall(r"weights +(\d+) of (\d+) tensors are from", reports(logged)[0])
    assert line[0] == line[1] != "0"


def test_finished_run_that_resumes_is_warned(request_for, logged):
    run(request_for(val=()))
    logged.clear()
    run(request_for(val=(), resume=True))
    (said,) = [text for text in reports(logged) if "0 iterations are left" in text]
    assert "the checkpoint has 2" in said and "SOLVER.MAX_ITER" in said and "--init-from" in said


def test_parts_say_what_is_frozen_and_what_norms_see(request_for):
    cfg = prepare(
        request_for(
            *("MODEL.BACKBONE.FREEZE_AT", "2", "RESNEST.ALLOW_FROZEN_RANDOM", "True"),
            *("MODEL.FPN.NORM", "GN", "MODEL.FPN.OUT_CHANNELS", "32"),
        )
    ).cfg
    model = Trainer.build_model(cfg).train()
    parts = {part.name: part for part in model_parts(model, 2)}
    assert list(parts)[:6] == ["stem", "res2", "res3", "res4", "res5", "FPN"]
    for name in ("stem", "res2"):
        assert parts[name].trainable == 0 < parts[name].frozen
        assert set(parts[name].norms) == {"FrozenBN"} and not parts[name].group
    assert parts["res3"].norms == {"BN": 5} and parts["res3"].group == 2
    assert set(parts["FPN"].norms) == {"GN"} and not parts["FPN"].group
    total = sum(part.trainable + part.frozen for part in parts.values())
    assert total == sum(parameter.numel() for parameter in model.parameters())


def _traps(*opts, data=None, **kwargs):
    opts = ("DATASETS.TEST", "('any',)", "TEST.PRECISE_BN.ENABLED", "False", *opts)
    data = data or TrainingData(1000, (5,) * 80, tuple(f"c{i}" for i in range(80)))
    return find_traps(get_config("mask_rcnn_resnest50_fpn", opts), data=data, **kwargs)


def test_a_step_far_beyond_the_memory_is_refused():
    with pytest.raises(RunError, match=r"need 50\.0 GiB, and 2\.0 GiB are free.*JITTER\.SIZE"):
        _traps(memory=50 << 30, available=2 << 30)


def test_sound_run_has_no_warning():
    assert _traps(groups={"res3": 4}, rate_batch=16, memory=10, available=11) == []


@pytest.mark.parametrize(
    ("opts", "kwargs", "words"),
    [
        (
            "",
            {"groups": {"res3": 3, "box head": 8}},
            ("norms of res3 take", "3 images", "FrozenBN"),
        ),
        ("", {"groups": {"res3": 1}}, ("from 1 image:", "SyncBN")),
        (
            "TEST.PRECISE_BN.ENABLED True",
            {"groups": {"res3": 16}},
            ("3200 images", "are 1000", "NUM_ITER 62", "ENABLED False"),
        ),
        (
            "TEST.PRECISE_BN.ENABLED True TEST.PRECISE_BN.NUM_ITER 60 SOLVER.MAX_ITER 50 "
            "SOLVER.STEPS () SOLVER.WARMUP_ITERS 0",
            {"groups": {"res3": 16}},
            ("longer than the training", "NUM_ITER 50"),
        ),
        (
            "",
            {"start": 90000},
            ("0 iterations are left", "SOLVER.MAX_ITER is 90000", "--init-from"),
        ),
        (
            "SOLVER.STEPS (60000,90000)",
            {},
            ("SOLVER.STEPS 90000 are never reached", "SOLVER.MAX_ITER"),
        ),
        ("SOLVER.WARMUP_ITERS 90000", {}, ("SOLVER.WARMUP_ITERS 90000", "Lower it")),
        (
            "RESNEST.FREEZE_NORM.ITER 90000",
            {},
            ("RESNEST.FREEZE_NORM.ITER 90000 is never reached",),
        ),
        ("DATASETS.TEST ()", {}, ("Nothing is evaluated", "--val-json")),
        ("", {"rate_batch": 64}, ("0.02 is for 64 images", "RESNEST.AUTO_SCALE True")),
        ("MODEL.ROI_HEADS.NUM_CLASSES 81", {}, ("NUM_CLASSES is 81", "NUM_CLASSES 80")),
        ("", {"memory": 3 << 30, "available": 2 << 30}, ("3.0 GiB", "2.0 GiB", "ACCUMULATE")),
        ("", {"data": TrainingData(9, (0,) * 3 + (1,) * 77, ("a",) * 80)}, ("3 of 80 classes",)),
    ],
)
def test_known_trap_is_named_with_its_way_out(opts, kwargs, words):
    (warning,) = _traps(*opts.split(), **kwargs)
    for word in words:
        assert word in warning


def test_unscaled_rate_is_warned_of_where_scaling_is_off(request_for, logged):
    run(request_for("RESNEST.AUTO_SCALE", "False", val=()))
    assert any(f"{RATE:g} is for 8 images per step" in text for text in reports(logged))


def test_data_is_counted_after_the_filters(data):
    name = prepare(
        RunRequest("sample_mask_rcnn_resnest14_fpn", (*TINY, "OUTPUT_DIR", "x"), (data["train"],))
    ).cfg
    summary = summarise_training_data(name)
    assert summary.images == 6 and len(summary.instances) == 5
    assert summary.class_names == ("circle", "square", "triangle", "star", "ring")
    assert summary.crowds == 0


def test_activations_estimated_from_shapes_are_those_of_a_real_pass(request_for):
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", (*TINY, "SOLVER.IMS_PER_BATCH", "2"))
    height, width = image_size(cfg)
    kept = []
    for device in ("meta", "cpu"):
        with torch.device(device):
            backbone = build_backbone(cfg).train()
            counter = SavedTensors(backbone)
            with counter.counting():
                backbone(torch.ones(2, 3, height, width))
        kept.append(counter.bytes)
    assert kept[0] == kept[1] > 2 * 4 * height * width


@pytest.mark.parametrize(
    ("part", "without"),
    [
        (("MODEL.KEYPOINT_ON", "True"), ("MODEL.KEYPOINT_ON", "False")),
        (("MODEL.MASK_ON", "True"), ("MODEL.MASK_ON", "False")),
        (("MODEL.RPN.CONV_DIMS", "[-1, -1]"), ("MODEL.RPN.CONV_DIMS", "[-1]")),
    ],
)
def test_each_part_of_a_detector_adds_to_the_estimate(part, without):
    more, less = (
        _saved_by_one_image(get_config("sample_mask_rcnn_resnest14_fpn", (*TINY, *opts)))
        for opts in (part, without)
    )
    assert more > less


def test_checkpointed_stages_keep_less_memory():
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", TINY)
    whole = _saved_by_one_image(cfg)
    cfg.RESNEST.ACTIVATION_CHECKPOINTING = ("res2", "res3")
    assert 0 < _saved_by_one_image(cfg) < whole


def test_memory_counts_optimizer_states_and_averages(request_for):
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", TINY)
    model = Trainer.build_model(cfg)
    adam = estimate_memory(cfg, model, images=2, dtype=None)
    trained = sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
    assert (adam.gradients, adam.optimizer) == (trained, 2 * trained)
    assert adam.activations == 2 * _saved_by_one_image(cfg)
    cfg.SOLVER.OPTIMIZER, cfg.MODEL_EMA.ENABLED = "SGD", True
    sgd = estimate_memory(cfg, model, images=2, dtype=torch.bfloat16)
    assert (sgd.optimizer, sgd.weights) == (trained, 2 * adam.weights)
    assert sgd.activations == adam.activations // 2


def _more(name: str, *opts: str) -> int:
    """What an image keeps more of with these options, bytes."""
    small = ("INPUT.MIN_SIZE_TRAIN", "(64,)", "MODEL.RESNETS.DEPTH", "14")
    before, after = (_saved_by_one_image(get_config(name, (*small, *o))) for o in ((), opts))
    return after - before


def test_each_layer_of_a_retinanets_head_is_estimated():
    pixels = 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1 * 1  # of p3 … p7, for 64 x 96
    two_subnets = 2 * 4 * 256 * pixels  # an output of 256 channels in float32 each
    assert _more("retinanet_resnest50_fpn", "MODEL.RETINANET.NUM_CONVS", "5") == two_subnets


def test_each_stage_of_a_cascade_is_estimated():
    keys = [f"MODEL.ROI_BOX_CASCADE_HEAD.{key}" for key in ("IOUS", "BBOX_REG_WEIGHTS")]
    pair = "((10, 10, 5, 5), (20, 20, 10, 10))"
    name = "cascade_mask_rcnn_resnest50_fpn"
    two = _more(name, keys[0], "(0.5, 0.6)", keys[1], pair)
    one = _more(name, keys[0], "(0.5,)", keys[1], "((10, 10, 5, 5),)")
    assert one == 2 * two < 0
    features = 4 * 512 * 256 * 7 * 7  # of 512 proposals; each of the four convolutions has a norm
    assert -two > 4 * features

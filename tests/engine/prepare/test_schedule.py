"""Learning rate and schedule: scaled to the batch once, in epochs of the real data."""

import json
import logging
import math
from types import SimpleNamespace

import pytest
import torch
from runs import TINY

from detectron2.data.datasets import register_coco_instances

from resnest_d2.config import get_config, get_config_file, list_configs, read_config
from resnest_d2.data import sample_set
from resnest_d2.engine import RunRequest, Trainer, prepare
from resnest_d2.engine.prepare import schedule
from resnest_d2.engine.prepare.given_values import GivenValues
from resnest_d2.engine.prepare.schedule import set_schedule

RECIPE = "mask_rcnn_resnest50_fpn"


def scheduled(name, *opts):
    return planned(name, *opts)[0]


def planned(name, *opts):
    """The config, and where its schedule comes from."""
    cfg, layers = read_config(name, opts)
    return cfg, set_schedule(cfg, GivenValues(layers))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=7, val_images=2
    )


@pytest.fixture
def request_for(data, tmp_path):
    left_out = ("SOLVER.MAX_ITER", "SOLVER.WARMUP_ITERS")
    pairs = zip(TINY[0::2], TINY[1::2], strict=True)
    tiny = [word for pair in pairs if pair[0] not in left_out for word in pair]

    def build(*opts, **kwargs):
        return RunRequest(
            config=kwargs.pop("config", "sample_mask_rcnn_resnest14_fpn"),
            opts=(*tiny, "OUTPUT_DIR", str(tmp_path / "run"), *opts),
            train=(data["train"],),
            **kwargs,
        )

    return build


IN_ITERATIONS = [name for name in list_configs() if not get_config(name).RESNEST.EPOCHS.MAX]


@pytest.mark.parametrize("name", IN_ITERATIONS)
def test_every_packaged_recipe_is_written_for_its_own_batch(name, caplog):
    with caplog.at_level("INFO"):
        cfg, origin = planned(name)
    assert cfg == get_config(name)
    assert origin.changes == () and origin.rate_batch == cfg.SOLVER.IMS_PER_BATCH
    assert "schedule" not in {record.name.rpartition(".")[2] for record in caplog.records}


def test_smaller_batch_gets_a_smaller_rate_and_a_longer_schedule():
    cfg = scheduled(RECIPE, "SOLVER.IMS_PER_BATCH", "2", "TEST.EVAL_PERIOD", 0)
    assert cfg.SOLVER.BASE_LR == pytest.approx(0.02 / 8)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (8 * 90000, (8 * 60000, 8 * 80000))
    assert (cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.CHECKPOINT_PERIOD) == (8000, 40000)
    assert cfg.TEST.EVAL_PERIOD == 0
    # the rate is scaled by the time that it is last given for, not by Detectron2's default batch
    assert scheduled("retinanet_resnest50_fpn", "SOLVER.IMS_PER_BATCH", "32").SOLVER.BASE_LR == 0.02


def test_larger_batch_leaves_no_iteration_count_at_zero():
    cfg = scheduled("finetune_mask_rcnn_resnest50_fpn", "SOLVER.IMS_PER_BATCH", 40000)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.TEST.EVAL_PERIOD) == (1, 1, 1)
    assert cfg.SOLVER.BASE_LR == pytest.approx(10)


def test_adamw_scales_by_the_square_root_and_moves_the_fixed_statistics():
    cfg = scheduled("memorise_mask_rcnn_resnest50_fpn", "SOLVER.IMS_PER_BATCH", "2")
    assert cfg.SOLVER.BASE_LR == pytest.approx(0.0005 / math.sqrt(2))
    assert (cfg.SOLVER.MAX_ITER, cfg.RESNEST.FREEZE_NORM.ITER) == (1100, 734)


def test_what_is_given_with_the_batch_is_meant(caplog):
    opts = ("SOLVER.IMS_PER_BATCH", "8", "SOLVER.MAX_ITER", "500", "TEST.EVAL_PERIOD", "100")
    with caplog.at_level("INFO"):
        cfg = scheduled(RECIPE, *opts)
    assert (cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD) == (500, 100)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS) == (0.01, (333, 444))  # of 500
    (said,) = [r.getMessage() for r in caplog.records if "is for 16" in r.getMessage()]
    for words in ("0.02", "0.01", "AUTO_SCALE False", "kept: SOLVER.MAX_ITER, TEST.EVAL_PERIOD"):
        assert words in said


@pytest.mark.parametrize(
    ("opts", "warm_up", "steps", "freeze"),
    [
        # of 90,000 iterations the recipe warms up in 1000, and drops the rate after 60,000, 80,000
        ("SOLVER.MAX_ITER 900", 10, (600, 800), 90),
        ("SOLVER.MAX_ITER 180000", 2000, (120000, 160000), 18000),
        ("SOLVER.MAX_ITER 900 SOLVER.WARMUP_ITERS 50", 50, (600, 800), 90),
        ("SOLVER.MAX_ITER 900 SOLVER.STEPS (700,)", 10, (700,), 90),
        ("SOLVER.MAX_ITER 900 SOLVER.STEPS (700,950)", 10, (700, 950), 90),
        ("SOLVER.MAX_ITER 2", 1, (1, 2), 1),
        ("SOLVER.MAX_ITER 1", 1, (1,), 1),
        ("SOLVER.WARMUP_ITERS 50", 50, (480000, 640000), 72000),  # MAX_ITER is scaled
        ("", 8000, (480000, 640000), 72000),
    ],
)
def test_warm_up_and_steps_keep_their_share_of_a_given_training(
    opts, warm_up, steps, freeze, tmp_path, caplog
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"_BASE_: {get_config_file(RECIPE)}\nRESNEST: {{FREEZE_NORM: {{ITER: 9000}}}}"
    )
    with caplog.at_level("INFO"):
        cfg = scheduled(str(recipe), "SOLVER.IMS_PER_BATCH", "2", *opts.split())
    assert cfg.SOLVER.BASE_LR == pytest.approx(0.02 / 8)
    assert (cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.STEPS) == (warm_up, steps)
    assert cfg.RESNEST.FREEZE_NORM.ITER == freeze
    assert ("the share of SOLVER.MAX_ITER" in caplog.text) == ("MAX_ITER" in opts)


def test_the_full_rate_is_reached_in_a_short_training_of_a_smaller_batch():
    rates = _rates(scheduled(RECIPE, "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "900"))
    assert rates[10:600] == pytest.approx([0.0025] * 590)
    assert rates[600:] == pytest.approx([0.00025] * 200 + [0.000025] * 100)


def test_share_is_of_the_schedule_below_the_file_that_gives_the_batch(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        f"_BASE_: {get_config_file(RECIPE)}\nSOLVER: {{IMS_PER_BATCH: 2, MAX_ITER: 9000}}"
    )
    assert scheduled(str(mine)).SOLVER.WARMUP_ITERS == 100
    again = scheduled(str(mine), "SOLVER.MAX_ITER", "900").SOLVER
    assert (again.WARMUP_ITERS, again.STEPS) == (10, (600, 800))


def _rates(cfg):
    """The learning rate of each iteration, as Detectron2's hook sets it."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.SOLVER.BASE_LR)
    scheduler = Trainer.build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(cfg.SOLVER.MAX_ITER):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", ["WarmupCosineLR", "WarmupMultiStepLR"])
def test_rate_of_zero_stays_zero(name):
    opts = ("SOLVER.BASE_LR", "0", "SOLVER.MAX_ITER", "8", "SOLVER.WARMUP_ITERS", "2")
    cfg = get_config(RECIPE, (*opts, "SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.STEPS", "(4,)"))
    assert _rates(cfg) == [0] * 8


def test_cosine_is_detectron2s_and_a_step_at_the_end_never_comes():
    cosine = ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.BASE_LR_END", "0.01")
    opts = ("SOLVER.MAX_ITER", "8", "SOLVER.WARMUP_ITERS", "0", "SOLVER.STEPS", "(4, 8)")
    cfg = get_config(RECIPE, (*opts, *cosine))
    expected = [0.01 + 0.005 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert _rates(cfg) == pytest.approx(expected)
    assert _rates(get_config(RECIPE, opts)) == pytest.approx([0.02] * 4 + [0.002] * 4)


def test_rate_of_ones_own_scales_nothing(caplog):
    opts = ("SOLVER.IMS_PER_BATCH", "2", "SOLVER.BASE_LR", "0.001")
    with caplog.at_level("INFO"):
        assert scheduled(RECIPE, *opts) == get_config(RECIPE, opts)
    assert "neither it nor the schedule is scaled" in caplog.text


def test_off_is_detectron2s_behaviour(caplog):
    opts = ("SOLVER.IMS_PER_BATCH", "2", "RESNEST.AUTO_SCALE", "False")
    with caplog.at_level("INFO", logger="resnest_d2.engine.prepare.schedule"):
        cfg, origin = planned(RECIPE, *opts)
    assert cfg == get_config(RECIPE, opts)
    assert not caplog.records
    assert origin.rate_batch == 16


def test_detectron2s_own_scaling_goes_first(caplog):
    opts = ("SOLVER.IMS_PER_BATCH", "2", "SOLVER.REFERENCE_WORLD_SIZE", "2")
    with caplog.at_level("INFO"):
        assert scheduled(RECIPE, *opts) == get_config(RECIPE, opts)
    assert "REFERENCE_WORLD_SIZE" in caplog.text


def test_rate_belongs_to_the_batch_of_its_layer_in_a_chain_of_files(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "SOLVER: {IMS_PER_BATCH: 8, BASE_LR: 1, MAX_ITER: 100, STEPS: [50]}\n"
    )
    (tmp_path / "batch.yaml").write_text(
        "_BASE_: base.yaml\nSOLVER: {IMS_PER_BATCH: 4, STEPS: [90]}\n"
    )
    (tmp_path / "rate.yaml").write_text("_BASE_: batch.yaml\nSOLVER: {BASE_LR: 0.5}\n")
    (tmp_path / "list.yaml").write_text(
        "_BASE_: [base.yaml, more.yaml]\nSOLVER: {IMS_PER_BATCH: 2}\n"
    )
    (tmp_path / "more.yaml").write_text("SOLVER: {MAX_ITER: 60}\n")
    solver = scheduled(tmp_path / "batch.yaml").SOLVER
    assert (solver.BASE_LR, solver.MAX_ITER, solver.STEPS) == (0.5, 200, (90,))
    solver = scheduled(tmp_path / "rate.yaml").SOLVER
    assert (solver.BASE_LR, solver.MAX_ITER) == (0.5, 100)
    solver = scheduled(tmp_path / "rate.yaml", "SOLVER.IMS_PER_BATCH", "12").SOLVER
    assert (solver.BASE_LR, solver.MAX_ITER, solver.STEPS) == (1.5, 33, (30,))
    solver = scheduled(tmp_path / "list.yaml").SOLVER
    assert (solver.BASE_LR, solver.MAX_ITER, solver.STEPS) == (0.25, 240, (200,))


def test_default_rate_belongs_to_the_default_batch(tmp_path):
    (tmp_path / "mine.yaml").write_text("SOLVER: {IMS_PER_BATCH: 8}\n")
    cfg = scheduled(tmp_path / "mine.yaml")
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (0.0005, 80000)


def test_written_config_is_never_scaled_again(tmp_path):
    opts = ("SOLVER.IMS_PER_BATCH", "2")
    cfg = scheduled(RECIPE, *opts)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    for name, given in ((tmp_path / "config.yaml", ()), (tmp_path / "config.yaml", opts)):
        again = scheduled(name, *given)
        for node in ("SOLVER", "TEST", "RESNEST"):
            assert again[node] == cfg[node]


def test_preparing_a_run_scales_and_getting_a_config_does_not(request_for):
    request = request_for()
    recipe = get_config(request.config).SOLVER
    assert get_config(request.config, request.opts).SOLVER.BASE_LR == recipe.BASE_LR
    cfg = prepare(request).cfg
    assert cfg.is_frozen()
    assert cfg.SOLVER.BASE_LR == pytest.approx(recipe.BASE_LR / 2)  # AdamW, 2 images in place of 8
    assert cfg.SOLVER.MAX_ITER == 4 * recipe.MAX_ITER
    # evaluation has no schedule
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is ''"):
        prepare(request_for("RESNEST.EPOCHS.MAX", "-1", eval_only=True))


def test_epochs_are_those_of_the_images_that_the_loader_draws_from(request_for, data, tmp_path):
    content = json.loads(open(data["train"][0]).read())
    empty = content["images"][0]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != empty]
    file = tmp_path / "train.json"
    file.write_text(json.dumps(content))
    request = request_for("RESNEST.EPOCHS.MAX", "5", "RESNEST.EPOCHS.EVAL_PERIOD", "1.1")
    assert prepare(request).cfg.SOLVER.MAX_ITER == 18  # 35 images, 2 a step
    request = RunRequest(request.config, request.opts, train=((str(file), data["train"][1]),))
    cfg = prepare(request).cfg
    assert cfg.SOLVER.MAX_ITER == 15  # one of 7 images has nothing
    assert cfg.TEST.EVAL_PERIOD == 4  # 3.3
    request = RunRequest(
        request.config,
        (*request.opts, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False"),
        train=request.train,
    )
    assert prepare(request).cfg.SOLVER.MAX_ITER == 18


def test_steps_and_warm_up_keep_their_share_of_the_epochs(request_for):
    def solver(*opts):
        steps = ("SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.IMS_PER_BATCH", "7")
        return prepare(request_for(*steps, *opts)).cfg.SOLVER

    recipe = solver("RESNEST.EPOCHS.MAX", "100")
    share = get_config("sample_mask_rcnn_resnest14_fpn").SOLVER
    warmup = 100 * share.WARMUP_ITERS / share.MAX_ITER
    assert (recipe.MAX_ITER, recipe.WARMUP_ITERS) == (100, round(warmup))
    given = solver("RESNEST.EPOCHS.MAX", "100", "SOLVER.STEPS", "(60, 90)")
    assert given.STEPS == (60, 90)
    epochs = solver(
        *("RESNEST.EPOCHS.MAX", "12", "RESNEST.EPOCHS.STEPS", "(8, 11)"),
        *("RESNEST.EPOCHS.WARMUP", "0.5", "RESNEST.EPOCHS.CHECKPOINT_PERIOD", "2"),
    )
    assert (epochs.MAX_ITER, epochs.STEPS) == (12, (8, 11))
    assert (epochs.WARMUP_ITERS, epochs.CHECKPOINT_PERIOD) == (1, 2)


@pytest.fixture
def images_110(monkeypatch):
    summary = SimpleNamespace(images=110)
    monkeypatch.setattr(schedule, "summarise_training_data", lambda cfg: summary)


def test_epochs_are_counted_without_rounding_errors(images_110):
    cfg = scheduled(RECIPE, "SOLVER.IMS_PER_BATCH", "1", "RESNEST.EPOCHS.MAX", "1.1")
    assert cfg.SOLVER.MAX_ITER == 121 < 1.1 * 110  # as floats have it


def test_a_step_in_epochs_at_the_end_of_the_iterations_is_refused(images_110):
    opts = ("SOLVER.IMS_PER_BATCH", "1", "SOLVER.MAX_ITER", "1100", "RESNEST.EPOCHS.STEPS")
    assert scheduled(RECIPE, *opts, "(9.9,)").SOLVER.STEPS == (1089,)
    with pytest.raises(ValueError, match="must lie below SOLVER.MAX_ITER 1100"):
        scheduled(RECIPE, *opts, "(10,)")


def test_steps_of_a_file_with_epochs_are_shares_of_its_own_iterations(images_110, tmp_path):
    """The file's iterations and steps belong together, whatever its epochs make of them."""
    file = tmp_path / "own.yaml"
    file.write_text(
        f"_BASE_: {get_config_file(RECIPE)}\n"
        "SOLVER: {IMS_PER_BATCH: 1, BASE_LR: 0.001, MAX_ITER: 1000, STEPS: [600, 800]}\n"
        "RESNEST: {EPOCHS: {MAX: 20}}\n"
    )
    solver = scheduled(file).SOLVER
    assert (solver.MAX_ITER, solver.STEPS) == (2200, (1320, 1760))


def test_written_config_with_epochs_gives_the_same_schedule(request_for, tmp_path):
    cfg = prepare(
        request_for(
            *("SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "RESNEST.EPOCHS.MAX", "37"),
            *("RESNEST.EPOCHS.EVAL_PERIOD", "2.5"),
        )
    ).cfg
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = prepare(
        RunRequest(str(tmp_path / "config.yaml"), train=request_for().train)  # no opts
    ).cfg
    assert again.SOLVER == cfg.SOLVER and again.TEST == cfg.TEST


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ("MAX -1", "RESNEST.EPOCHS.MAX must be a number of epochs, at least 0, got -1"),
        ("EVAL_PERIOD -0.5", "RESNEST.EPOCHS.EVAL_PERIOD .*-0.5"),
        ("STEPS (1,'two')", "RESNEST.EPOCHS.STEPS must be numbers of epochs.*'two'"),
        ("STEPS (2,1)", "RESNEST.EPOCHS.STEPS must rise"),
        ("MAX 3 RESNEST.EPOCHS.STEPS (1,3)", "RESNEST.EPOCHS.STEPS must lie below .*MAX 3"),
        ("STEPS (5,4000)", r"STEPS .* are iterations .*below SOLVER.MAX_ITER \d+"),
        ("MAX 3 SOLVER.MAX_ITER 9", "EPOCHS.MAX 3.0 and SOLVER.MAX_ITER 9 contradict"),
        ("WARMUP 1 SOLVER.WARMUP_ITERS 9", "EPOCHS.WARMUP 1.0 and SOLVER.WARMUP_ITERS 9 contra"),
    ],
)
def test_epochs_that_cannot_be_are_refused(opts, message, request_for):
    with pytest.raises(ValueError, match=message):
        prepare(request_for(*f"RESNEST.EPOCHS.{opts}".split()))


def test_data_without_an_object_is_refused_where_epochs_are_counted(request_for, data, tmp_path):
    content = json.loads(open(data["train"][0]).read())
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    (tmp_path / "train.json").write_text(json.dumps(content))
    request = request_for("RESNEST.EPOCHS.MAX", "3", "MODEL.MASK_ON", "False")
    pair = (str(tmp_path / "train.json"), data["train"][1])
    with pytest.raises(ValueError, match="annotations are crowds"):
        prepare(RunRequest(request.config, request.opts, train=(pair,)))
    register_coco_instances("test_schedule_crowds", {}, *pair)
    registered = ("DATASETS.TRAIN", "('test_schedule_crowds',)")
    with pytest.raises(ValueError, match="no image with an object"):
        prepare(RunRequest(request.config, (*request.opts, *registered)))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            "SOLVER.MAX_ITER 0",
            "SOLVER.MAX_ITER must be at least 1, got 0: nothing would be",
        ),
        ("SOLVER.MAX_ITER -5", "SOLVER.MAX_ITER .*-5"),
        ("SOLVER.IMS_PER_BATCH 0", "SOLVER.IMS_PER_BATCH must be .*got 0"),
        ("SOLVER.CHECKPOINT_PERIOD 0", "SOLVER.CHECKPOINT_PERIOD must be at least 1"),
        ("SOLVER.BASE_LR -1", "SOLVER.BASE_LR must be a number"),
        (
            "SOLVER.BASE_LR 0 SOLVER.LR_SCHEDULER_NAME WarmupCosineLR SOLVER.BASE_LR_END 0.1",
            "SOLVER.BASE_LR is 0, and a cosine never reaches SOLVER.BASE_LR_END 0.1",
        ),
        (
            "SOLVER.LR_SCHEDULER_NAME WarmupMultiStepLR SOLVER.STEPS (3,2)",
            r"SOLVER.STEPS must rise, got \(3, 2\)",
        ),
    ],
)
def test_training_of_nothing_is_an_error(opts, message, request_for):
    with pytest.raises(ValueError, match=message):
        prepare(request_for(*opts.split()))


def test_change_is_logged_once_by_a_preparation(request_for, caplog):
    with caplog.at_level(logging.INFO):
        prepare(request_for())
    said = [r for r in caplog.records if "SOLVER.IMS_PER_BATCH is 2" in r.getMessage()]
    assert len(said) == 1


def test_whole_numbers_are_floats_where_the_key_is_one(tmp_path):
    (tmp_path / "mine.yaml").write_text("RESNEST: {EPOCHS: {MAX: 12}}\nSOLVER: {BASE_LR: 1}\n")
    cfg = get_config(tmp_path / "mine.yaml", ["MODEL_EMA.DECAY", 0, "SOLVER.GAMMA", "1"])
    for value in (cfg.RESNEST.EPOCHS.MAX, cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA):
        assert isinstance(value, float)
    assert (cfg.RESNEST.EPOCHS.MAX, cfg.SOLVER.BASE_LR, cfg.MODEL_EMA.DECAY) == (12, 1, 0)
    with pytest.raises(ValueError, match="SOLVER.BASE_LR"):
        get_config(RECIPE, ["SOLVER.BASE_LR", "one"])

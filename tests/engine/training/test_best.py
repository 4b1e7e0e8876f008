"""The best checkpoint, early stopping, and where metrics of evaluations go."""

import json
from functools import partial

import pytest
import torch
from processes import run_in_processes
from runs import tiny_request

from detectron2.utils import comm

from resnest_d2.checkpoint import RunCheckpointer, find_checkpoint
from resnest_d2.data import sample_set
from resnest_d2.engine import RunRequest, Trainer, prepare, run
from resnest_d2.engine.prepare import plan

BEST = ("RESNEST.BEST.METRIC", "bbox/AP", "TEST.EVAL_PERIOD", "1", "SOLVER.MAX_ITER", "8")
PATIENCE = ("RESNEST.BEST.PATIENCE", "2")
NAN = float("nan")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    return sample_set(folder, image_size=64, train_images=4, val_images=2)


@pytest.fixture
def request_for(data, tmp_path):
    return partial(tiny_request, data, tmp_path, "SOLVER.CHECKPOINT_PERIOD", "1")


class Scripted(Trainer):
    """A trainer without arithmetic, whose evaluation at iteration i gives ``values[i]``."""

    values: tuple = ()
    task = "bbox"

    def run_step(self):
        pass

    def _evaluate(self):
        self.evaluations = [*getattr(self, "evaluations", []), self.iter]
        number = min(self.iter, len(self.values) - 1)
        results = {self.task: {"AP": self.values[number], "AP50": 0.0}}
        self._last_eval_results = results if comm.is_main_process() else {}
        return self._last_eval_results


def scripted(request: RunRequest, values, *, resume: bool = False) -> Scripted:
    trainer = type("Run", (Scripted,), {"values": values})(prepare(request).cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def best_of(trainer: Trainer) -> tuple:
    hook = next(h for h in trainer._hooks if type(h).__name__ == "BestCheckpoint")
    return hook.best_metric, hook.best_iter


def iteration_of(folder, name: str) -> int:
    return torch.load(folder / f"{name}.pth", weights_only=True)["iteration"]


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("max", (1, 5, 4, NAN, 5, 3, 2, 1), (5, 1)),
        ("min", (3, 2, NAN, 4, 2, 2, 5, 6), (2, 1)),
        ("max", (NAN, NAN, 0, 0, 0, 0, 0, 0), (0, 2)),
        ("max", (1, float("inf"), 2, 0, 0, 0, 0, 0), (2, 2)),
        ("max", (1, 2, 3, 4, 5, 6, 7, 9), (9, 8)),  # the last evaluation comes after training
    ],
)
def test_best_checkpoint_is_that_of_the_best_metric(request_for, tmp_path, mode, values, best):
    trainer = scripted(request_for(*BEST, "RESNEST.BEST.MODE", mode), values)
    trainer.train()
    assert best_of(trainer) == best
    assert iteration_of(tmp_path, "model_best") == best[1]
    assert find_checkpoint(tmp_path).name == "model_final.pth"


def test_best_checkpoint_is_no_place_to_resume_from(request_for, tmp_path):
    trainer = scripted(request_for(*BEST), (1,))
    trainer.checkpointer.save("model_0000003", iteration=3)
    trainer.checkpointer.save("model_best", iteration=4)
    assert (tmp_path / "model_best.pth").is_file()
    assert find_checkpoint(tmp_path).name == "model_0000003.pth"
    assert "model_best.pth" in RunCheckpointer.found_in(str(tmp_path))


def test_training_ends_after_evaluations_without_a_better_value(request_for, tmp_path, caplog):
    trainer = scripted(request_for(*BEST, *PATIENCE), (1, 3, 2, 3, 9, 9, 9, 9))
    with caplog.at_level("INFO", logger="resnest_d2"):
        trainer.train()
    assert trainer.evaluations == [0, 1, 2, 3]
    assert trainer.results["bbox"]["AP"] == 3
    assert iteration_of(tmp_path, "model_best") == 1
    assert iteration_of(tmp_path, "model_final") == iteration_of(tmp_path, "model_0000003") == 3
    assert find_checkpoint(tmp_path).name == "model_final.pth"
    assert "Training ends at iteration 3: the last 2 evaluations" in caplog.text
    assert "Best bbox/AP: 3.000 at iteration 1" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["bbox/AP"] for line in lines if "bbox/AP" in line] == [1, 3, 2, 3]


def test_nan_counts_as_no_better_value(request_for):
    trainer = scripted(request_for(*BEST, *PATIENCE), (1, NAN, NAN, 9, 9, 9, 9, 9))
    trainer.train()
    assert trainer.evaluations == [0, 1, 2]


VALUES = (1, 3, 2, 3, 9, 9, 9, 9)


@pytest.mark.parametrize("killed", [0, 1, 2])
@pytest.mark.parametrize("when", ["before the evaluation", "after it"])
def test_resumed_run_stops_where_the_uninterrupted_one_does(request_for, tmp_path, killed, when):
    class Kill(BaseException):
        pass

    trainer = scripted(request_for(*BEST, *PATIENCE), VALUES)
    evaluate = trainer._evaluate

    def dying():
        if trainer.iter == killed + (when == "after it"):
            raise Kill
        return evaluate()

    for hook in trainer._hooks:
        if type(hook).__name__ == "EvalHook":
            hook._func = dying
    with pytest.raises(Kill):
        trainer.train()
    if when == "after it":  # the next iteration's checkpoint did not get onto the disk
        (tmp_path / "last_checkpoint").write_text(f"model_{killed:07d}.pth")

    resumed = scripted(request_for(*BEST, *PATIENCE, resume=True), VALUES, resume=True)
    assert resumed.start_iter == killed + 1
    resumed.train()
    assert resumed.iter == 3
    assert resumed.results["bbox"]["AP"] == 3
    assert best_of(resumed) == (3, 1)
    assert iteration_of(tmp_path, "model_best") == 1
    assert iteration_of(tmp_path, "model_final") == 3


def test_run_that_stopped_early_stays_stopped_until_it_gets_more_patience(request_for, tmp_path):
    scripted(request_for(*BEST, *PATIENCE), VALUES).train()
    again = scripted(request_for(*BEST, *PATIENCE, resume=True), VALUES, resume=True)
    again.train()
    assert again.iter == 3 and again.evaluations == [3]  # for its results
    assert again.results["bbox"]["AP"] == 3
    assert iteration_of(tmp_path, "model_final") == 3
    more = (*BEST, "RESNEST.BEST.PATIENCE", "3")
    patient = scripted(request_for(*more, resume=True), VALUES, resume=True)
    patient.train()
    assert patient.evaluations == [3, 4, 5, 6, 8]  # the first for its results
    assert iteration_of(tmp_path, "model_best") == 4


def test_evaluation_that_lacks_the_metric_names_those_that_it_has(request_for):
    trainer = scripted(request_for(*BEST), VALUES)
    trainer.task = "boxes"
    with pytest.raises(ValueError, match="'bbox/AP'. It gave boxes/AP, boxes/AP50"):
        trainer.train()


def test_real_run_keeps_its_best_and_evaluates_like_it(request_for, tmp_path):
    best = ("RESNEST.BEST.METRIC", "segm/AP50", "TEST.EVAL_PERIOD", "1")
    results = run(request_for(*best, "RESNEST.EMA.DECAY", "0.5"))
    assert set(results) == {"bbox", "segm"}
    hooks = torch.load(tmp_path / "model_best.pth", weights_only=True)["trainer"]["hooks"]
    assert set(hooks["BestCheckpoint"]) == {"best_metric", "best_iter", "evaluated", "waited"}


@pytest.mark.parametrize(
    ("opts", "kwargs", "message"),
    [
        (("RESNEST.BEST.PATIENCE", "3"), {}, "PATIENCE 3 needs a RESNEST.BEST.METRIC"),
        ((*BEST, "RESNEST.BEST.PATIENCE", "-1"), {}, "PATIENCE must be at least 0, got -1"),
        ((*BEST, "RESNEST.BEST.MODE", "highest"), {}, "BEST.MODE must be one of .*'highest'"),
        ((*BEST, "TEST.EVAL_PERIOD", "0"), {}, "'bbox/AP' needs evaluations.*TEST.EVAL_PERIOD"),
        (BEST, {"val": ()}, "needs data to evaluate on.*DATASETS.TEST.*--val-json"),
        ((*BEST, "RESNEST.BEST.METRIC", "AP"), {}, "one of bbox/AP, bbox/AP50.*segm/AP.*got 'AP'"),
        ((*BEST, "RESNEST.BEST.METRIC", "bbox/mAP"), {}, "got 'bbox/mAP'"),
        ((*BEST, "RESNEST.BEST.METRIC", "keypoints/AP"), {}, "got 'keypoints/AP'"),
        ((*BEST, "RESNEST.BEST.METRIC", "bbox/AP-cat"), {}, "got 'bbox/AP-cat'"),
        (
            (*BEST, "RESNEST.BEST.METRIC", "segm/AP", "MODEL.MASK_ON", "False"),
            {},
            "must be one of bbox.*got 'segm/AP'",
        ),
    ],
)
def test_metric_that_no_evaluation_gives_is_refused_at_start(request_for, opts, kwargs, message):
    with pytest.raises(ValueError, match=message):
        prepare(request_for(*opts, **kwargs))


def test_metric_of_one_class_and_of_one_of_several_data_sets(request_for, data, tmp_path):
    prepare(request_for(*BEST, "RESNEST.BEST.METRIC", "segm/AP-star"))
    two = {"val": (data["val"], data["train"])}
    with pytest.raises(ValueError, match="must be one of .*/bbox/AP, .*got 'bbox/AP'") as refusal:
        prepare(request_for(*BEST, **two))
    name = str(refusal.value).partition("must be one of ")[2].split(",")[0]
    opts = (*BEST, "RESNEST.BEST.METRIC", name, "SOLVER.MAX_ITER", "1")
    results = run(request_for(*opts, **two))
    assert len(results) == 2
    assert (tmp_path / "model_best.pth").is_file()


def _stops(rank: int, request: RunRequest) -> int:
    trainer = scripted(request, VALUES)
    trainer.train()
    return trainer.iter


def test_all_processes_stop_together(request_for, tmp_path):
    request = request_for(*BEST, *PATIENCE, "SOLVER.IMS_PER_BATCH", "4", num_processes=2)
    folder = tmp_path / "ranks"
    folder.mkdir()
    assert run_in_processes(_stops, folder, request) == [3, 3]


AUGMENTED = (
    *("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(48, 64)", "TEST.AUG.MAX_SIZE", "64"),
    *("SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "1"),
)


def test_augmented_evaluation_comes_after_training_beside_the_plain_one(request_for, tmp_path):
    output = tmp_path / "results.json"
    results = run(request_for(*AUGMENTED, "RESNEST.EMA.DECAY", "0.5", output_json=str(output)))
    tasks = {"bbox", "segm", "bbox_TTA", "segm_TTA"}
    assert set(results) == tasks == set(json.loads(output.read_text()))
    assert set(results["bbox_TTA"]) == set(results["bbox"])
    for folder in ("inference", "TTA/inference"):
        assert (tmp_path / folder / "coco_instances_results.json").is_file()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert sum("bbox/AP" in line for line in lines) == 2
    assert sum("bbox_TTA/AP" in line for line in lines) == 1
    weights = ("MODEL.WEIGHTS", str(tmp_path / "model_final.pth"))
    again = run(request_for(*AUGMENTED, *weights, eval_only=True))
    assert repr(sorted(again.items())) == repr(sorted(results.items()))


def test_augmented_evaluation_is_by_data_set_where_there_are_several(request_for, data):
    results = run(request_for(*AUGMENTED, val=(data["val"], data["train"])))
    assert [set(part) for part in results.values()] == 2 * [
        {"bbox", "segm", "bbox_TTA", "segm_TTA"}
    ]


@pytest.mark.parametrize("stops", [True, False])
def test_run_that_stops_early_is_evaluated_augmented_too(request_for, stops, monkeypatch):
    seen = []

    def augmented(self, cfg, model):
        seen.append(self.iter)
        return {"bbox_TTA": {"AP": 7.0}}

    monkeypatch.setattr(Trainer, "test_augmented", augmented)
    patience = PATIENCE if stops else ()
    trainer = scripted(request_for(*AUGMENTED, *BEST, *patience), VALUES)
    trainer.train()
    assert seen == [3 if stops else 8]
    assert trainer.results["bbox_TTA"] == {"AP": 7.0} and "bbox" in trainer.results


@pytest.mark.parametrize(
    ("config", "opts", "message"),
    [
        ("retinanet_resnest50_fpn", (), "MODEL.META_ARCHITECTURE is RetinaNet"),
        ("panoptic_fpn_resnest50", (), "MODEL.META_ARCHITECTURE is PanopticFPN"),
        ("keypoint_rcnn_resnest50_fpn", (), "MODEL.KEYPOINT_ON is True"),
        (
            "faster_rcnn_resnest50_fpn",
            ("MODEL.LOAD_PROPOSALS", "True"),
            "MODEL.LOAD_PROPOSALS is True",
        ),
    ],
)
def test_augmentation_of_what_detectron2_cannot_augment_is_refused(
    config, opts, message, monkeypatch
):
    monkeypatch.setattr(plan, "check_files", lambda *_: None)
    with pytest.raises(ValueError, match=f"TEST.AUG.ENABLED must be False where {message}"):
        prepare(RunRequest(config, ("TEST.AUG.ENABLED", "True", *opts)))


def test_metrics_of_every_evaluation_are_written_and_tensorboard_has_them(request_for, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = scripted(request_for(*BEST, "TEST.EVAL_PERIOD", "3"), tuple(range(8)))
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    found = {line["iteration"]: line["bbox/AP"] for line in lines if "bbox/AP" in line}
    assert found == {2: 2, 5: 5, 8: 7}
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("bbox/AP")] == [
        *((2, 2.0), (5, 5.0), (8, 7.0))
    ]

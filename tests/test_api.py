"""Training and evaluation from Python, on data sets of one's own."""

import json
import logging
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from runs import TINY

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.modeling import build_model

import resnest_d2
from resnest_d2 import Predictor, get_config
from resnest_d2.data import sample_set

RECIPE = "sample_mask_rcnn_resnest14_fpn"
OPTS = [*TINY, "INPUT.MASK_FORMAT", "polygon"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=6, val_images=3
    )


@pytest.fixture(scope="module")
def own(test_data, tmp_path_factory):
    """``own(classes)``: training and validation data of some of COCO's classes.

    New files; category and image ids are new, too, far apart and out of order.
    """
    coco = test_data / "coco_train_mini"
    content = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    images = {image["id"]: image for image in content["images"]}

    def build(classes: int):
        folder = tmp_path_factory.mktemp(f"own{classes}")
        found = {}
        for annotation in content["annotations"]:
            if not annotation["iscrowd"]:
                found.setdefault(annotation["category_id"], []).append(annotation)
        chosen = sorted(found, key=lambda i: -len(found[i]))[:classes]
        ids = {old: 1000 - 37 * number for number, old in enumerate(chosen)}
        names = {c["id"]: c["name"] for c in content["categories"]}
        categories = [{"id": ids[old], "name": f"my {names[old]}"} for old in chosen]
        sets = {}
        kept = {i: [a for c in chosen for a in found[c] if a["image_id"] == i] for i in images}
        kept = {i: annotations for i, annotations in kept.items() if annotations}
        for split, part in (("train", list(kept)[:6]), ("val", list(kept)[6:9])):
            annotations = [
                {**a, "id": 7 * a["id"], "category_id": ids[a["category_id"]]}
                | {"image_id": 100 + 13 * a["image_id"]}
                for i in part
                for a in kept[i]
            ]
            file = folder / f"{split}.json"
            file.write_text(
                json.dumps(
                    {
                        "images": [{**images[i], "id": 100 + 13 * i} for i in part],
                        "annotations": annotations,
                        "categories": categories,
                    }
                )
            )
            sets[split] = (file, coco / "images")
        ordered = sorted(categories, key=lambda category: category["id"])
        return sets, [category["name"] for category in ordered]

    return build


@pytest.mark.parametrize("classes", [1, 10])
def test_own_classes_are_trained_evaluated_and_predicted_from_the_checkpoint(
    classes, own, tmp_path
):
    sets, names = own(classes)
    result = resnest_d2.train(
        RECIPE, train=sets["train"], val=[sets["val"]], output_dir=tmp_path / "run", opts=OPTS
    )
    assert result.checkpoint == tmp_path / "run" / "model_final.pth"
    assert set(result.metrics) == {"bbox", "segm"}
    assert all(isinstance(v, float) for task in result.metrics.values() for v in task.values())

    again = resnest_d2.evaluate(result.checkpoint, val=sets["val"])
    assert json.dumps(again.metrics) == json.dumps(result.metrics)  # as text: NaN equals NaN
    assert again.checkpoint == result.checkpoint
    moved = tmp_path / "elsewhere.pth"
    moved.write_bytes(result.checkpoint.read_bytes())
    predictor = Predictor(moved, device="cpu", score_threshold=0.0)
    assert predictor.class_names == names
    found = predictor(np.zeros((48, 64, 3), np.uint8))
    assert len(found) == 0 or int(found.pred_classes.max()) < classes

    model = build_model(predictor.cfg)  # random
    stock = DetectionCheckpointer(model).load(str(moved))
    assert stock["resnest_d2"]["class_names"] == names
    for name, value in predictor.model.named_parameters():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


_STOCK = """
import sys
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

class Any(nn.Module):
    def load_state_dict(self, state, strict=True):
        self.names = list(state)
        return nn.modules.module._IncompatibleKeys([], [])

model = Any()
rest = DetectionCheckpointer(model).load(sys.argv[1])
assert rest["resnest_d2"]["class_names"] == ["my person"], rest
assert not [name for name in sys.modules if name.startswith("resnest_d2")]
"""


def test_stock_detectron2_reads_the_checkpoint_without_this_package(own, tmp_path):
    sets, _ = own(1)
    result = resnest_d2.train(RECIPE, train=sets["train"], output_dir=tmp_path / "run", opts=OPTS)
    assert result.metrics == {}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _STOCK, str(result.checkpoint)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_fine_tuning_recipe_trains_one_image_per_worker(own, tmp_path):
    sets, names = own(1)
    result = resnest_d2.train(
        "finetune_mask_rcnn_resnest50_fpn",
        train=sets["train"],
        output_dir=tmp_path / "run",
        opts=[
            *("MODEL.WEIGHTS", "", "RESNEST.ALLOW_FROZEN_RANDOM", "True", "MODEL.DEVICE", "cpu"),
            *("SOLVER.IMS_PER_BATCH", "1", "SOLVER.MAX_ITER", "3", "DATALOADER.NUM_WORKERS", "0"),
            *("INPUT.MIN_SIZE_TRAIN", "(96,)", "SOLVER.STEPS", "()", "SEED", "1"),
        ],
    )
    weights = torch.load(result.checkpoint, weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert Predictor(result.checkpoint, device="cpu").class_names == names


def test_second_run_in_a_process_has_its_own_log_and_leaves_nothing(
    shapes, own, tmp_path, capsys, monkeypatch
):
    sets, names = own(1)
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "resnest_d2")]
    for log in loggers:
        monkeypatch.setattr(log, "handlers", [])  # those of other tests have outputs of their own
    before = [log.handlers[:] for log in loggers]
    states = random.getstate(), torch.get_rng_state()
    resnest_d2.train(
        RECIPE,
        train=shapes["train"],
        output_dir=tmp_path / "first",
        opts=[*TINY, "SOLVER.MAX_ITER", "1"],
    )
    first = (tmp_path / "first" / "log.txt").read_text()
    capsys.readouterr()
    resnest_d2.train(RECIPE, train=sets["train"], output_dir=tmp_path / "second", opts=OPTS)
    shown = capsys.readouterr().out
    second = (tmp_path / "second" / "log.txt").read_text()
    assert (tmp_path / "first" / "log.txt").read_text() == first
    for text in (shown, second):
        for line in ("Start of training:", "Starting training from iteration 0"):
            assert text.count(line) == 1, line
    assert [log.handlers for log in loggers] == before
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[1])
    # a third one in the first one's folder writes on
    opts = [*TINY, "SOLVER.MAX_ITER", "2"]
    resnest_d2.train(
        RECIPE, train=shapes["train"], output_dir=tmp_path / "first", opts=opts, resume=True
    )
    assert "Starting training from iteration 1" in (tmp_path / "first" / "log.txt").read_text()


def test_config_is_taken_as_it_is_and_opts_scale_it(shapes, tmp_path):
    cfg = get_config(RECIPE, OPTS)
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.SOLVER.MAX_ITER = 1
    cfg.freeze()
    written = []
    for folder, opts in (("as-is", []), ("scaled", ["SOLVER.IMS_PER_BATCH", 4])):
        result = resnest_d2.train(
            cfg, train=shapes["train"], output_dir=tmp_path / folder, opts=opts
        )
        written.append(Predictor(result.checkpoint, device="cpu").cfg.SOLVER.BASE_LR)
    assert written == [cfg.SOLVER.BASE_LR, pytest.approx(cfg.SOLVER.BASE_LR * math.sqrt(2))]
    assert cfg.is_frozen() and cfg.SOLVER.IMS_PER_BATCH == 2


def test_registered_data_sets_are_named(shapes, tmp_path):
    for split in ("train", "val"):
        name = f"api_test_{split}"
        if name not in MetadataCatalog.list():
            register_coco_instances(name, {}, *shapes[split])
    result = resnest_d2.train(
        "sample_mask_rcnn_resnest14_fpn",
        train="api_test_train",
        val=["api_test_val"],
        output_dir=tmp_path,
        opts=TINY,
    )
    predictor = Predictor(result.checkpoint, device="cpu")
    assert predictor.class_names == ["circle", "square", "triangle", "star", "ring"]
    assert tuple(predictor.cfg.DATASETS.TRAIN) == ("api_test_train",)
    assert tuple(predictor.cfg.DATASETS.TEST) == ("api_test_val",)
    found = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert {result["image_id"] for result in found} == {1, 2, 3}  # of six in the training data
    resnest_d2.evaluate(tmp_path, val="api_test_train", output_dir=tmp_path / "other")
    found = tmp_path / "other" / "inference" / "coco_instances_results.json"
    assert {result["image_id"] for result in json.loads(found.read_text())} == set(range(1, 7))
    again = resnest_d2.evaluate(tmp_path).metrics
    assert set(again) == {"bbox", "segm"}
    assert json.dumps(again) == json.dumps(result.metrics)  # as text: NaN equals NaN


@pytest.mark.slow
def test_quiet_shows_nothing_and_logs_all(shapes, tmp_path, capsys):
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "resnest_d2")]
    before = [log.handlers[:] for log in loggers]
    capsys.readouterr()
    result = resnest_d2.train(
        RECIPE, train=shapes["train"], output_dir=tmp_path / "run", opts=TINY, quiet=True
    )
    again = tmp_path / "again"
    resnest_d2.evaluate(result.checkpoint, val=shapes["val"], output_dir=again, quiet=True)
    assert not capsys.readouterr().out
    assert [log.handlers for log in loggers] == before
    assert "Starting training" in (tmp_path / "run" / "log.txt").read_text()
    assert "Evaluation results for bbox" in (again / "inference" / "log.txt").read_text()


@pytest.mark.slow
def test_several_processes_give_the_metrics_too(shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    parts = ("RESNETS", "FPN", "ROI_MASK_HEAD")  # the statistics of BN differ between processes
    norms = [word for part in parts for word in (f"MODEL.{part}.NORM", "SyncBN")]
    result = resnest_d2.train(
        RECIPE,
        train=shapes["train"],
        val=shapes["val"],
        output_dir=tmp_path,
        opts=[*TINY, *norms, "SOLVER.IMS_PER_BATCH", "4"],
        num_processes=2,
    )
    alone = resnest_d2.evaluate(result.checkpoint, val=shapes["val"])
    assert set(result.metrics) == {"bbox", "segm"}
    for task, metrics in alone.metrics.items():
        assert result.metrics[task] == pytest.approx(metrics, nan_ok=True)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"train": ("no.json", "/tmp")}, FileNotFoundError, "no.json"),
        ({"train": "no_such_set"}, KeyError, "no_such_set"),
        ({"train": []}, ValueError, "train is empty"),
        ({"train": [("a", "b", "c")]}, ValueError, "train must be"),
        ({"val": "coco_2017_val"}, ValueError, "val must be .json file"),
        ({"opts": ["SOLVER.MAX_ITER"]}, ValueError, "opts must be a list of pairs"),
        ({"opts": ["SOLVER.NO", 1]}, KeyError, "SOLVER.NO"),
        ({"opts": [*TINY, "SOLVER.MAX_ITER", "0"]}, ValueError, "SOLVER.MAX_ITER must be"),
        ({"config": "no_such_config"}, KeyError, "no_such_config"),
    ],
)
def test_errors_are_those_of_the_command(kwargs, error, message, shapes, tmp_path):
    arguments = {"config": RECIPE, "train": shapes["train"], "opts": TINY, **kwargs}
    with pytest.raises(error, match=message):
        resnest_d2.train(arguments.pop("config"), output_dir=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_evaluation_on_other_classes_or_unknown_data_is_refused(shapes, own, tmp_path):
    result = resnest_d2.train(RECIPE, train=shapes["train"], output_dir=tmp_path, opts=TINY)
    sets, _ = own(1)
    with pytest.raises(ValueError, match="trained on the classes circle, .*has my person"):
        resnest_d2.evaluate(result.checkpoint, val=sets["val"])
    with pytest.raises(ValueError, match="val="):
        resnest_d2.evaluate(result.checkpoint)
    with pytest.raises(FileNotFoundError, match="no_such.json"):
        resnest_d2.evaluate(result.checkpoint, val=(tmp_path / "no_such.json", tmp_path))
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        resnest_d2.evaluate(tmp_path / "no.pth")

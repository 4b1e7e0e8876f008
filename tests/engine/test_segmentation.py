"""Semantic segmentation on images and label maps of one's own, from the check to prediction."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from label_sets import CLASSES, write_label_set
from PIL import Image
from runs import SMALL_NETWORK

from resnest_d2 import Predictor, evaluate, get_config, train
from resnest_d2.cli.explain import _text
from resnest_d2.engine import RunRequest, Trainer, prepare, run
from resnest_d2.modeling.build import meta_model
from resnest_d2.modeling.windows import WindowedSegmentor
from resnest_d2_command import main

SMALL = (
    *(*SMALL_NETWORK, "MODEL.WEIGHTS", "", "SEED", "1", "DATALOADER.NUM_WORKERS", "0"),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", "16", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "16"),
    *("RESNEST.JITTER.SIZE", "64", "RESNEST.JITTER.CROP", "56", "INPUT.MIN_SIZE_TEST", "64"),
    *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2"),
    *("RESNEST.AUTO_SCALE", "False", "SOLVER.BASE_LR", "0.02"),
)
RECIPE = "deeplabv3_resnest50_ade20k"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_label_set(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run's folder and its metrics."""
    folder = tmp_path_factory.mktemp("run")
    return folder, run(request_of(data, folder))


def request_of(data: dict, folder, *opts: str, **kwargs) -> RunRequest:
    kwargs = {
        "train": (data["train"],),
        "val": (data["val"],),
        "classes": str(data["classes"]),
        **kwargs,
    }
    return RunRequest(RECIPE, (*SMALL, "OUTPUT_DIR", str(folder), *opts), **kwargs)


def weights(folder) -> dict:
    return torch.load(Path(folder) / "model_final.pth", weights_only=True)["model"]


def test_a_run_on_label_maps_is_evaluated_by_class(trained, data):
    folder, metrics = trained
    assert metrics["sem_seg"].keys() >= {"mIoU", "pACC", *(f"IoU-{name}" for name in CLASSES)}
    lines = (folder / "metrics.json").read_text(encoding="utf-8").splitlines()
    logged = set().union(*map(json.loads, lines))
    assert {"loss_sem_seg", "loss_sem_seg_aux", "sem_seg/mIoU"} <= logged


def test_the_rates_follow_the_poly_schedule(data, tmp_path):
    seen = []
    plan = prepare(request_of(data, tmp_path, "SOLVER.BACKBONE_MULTIPLIER", "0.1", val=()))
    trainer = Trainer(plan.cfg)
    step = trainer.run_step

    def run_step():
        rates = {
            name: group["lr"]
            for group in trainer.optimizer.param_groups
            for parameter in group["params"]
            for name, other in trainer.model.named_parameters()
            if other is parameter
        }
        seen.append(rates)
        step()

    trainer.run_step = run_step
    trainer.train()
    for iteration, rates in enumerate(seen):
        head = 0.02 * (1 - iteration / 4) ** 0.9
        for name, rate in rates.items():
            expected = head * (0.1 if name.startswith("backbone.") else 1)
            assert rate == pytest.approx(expected, rel=1e-12), (iteration, name)
    assert len(seen) == 4


def test_a_resumed_run_takes_the_schedule_of_its_config(trained, data, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    plan = prepare(request_of(data, tmp_path / "run", "SOLVER.MAX_ITER", "8", resume=True, val=()))
    trainer = Trainer(plan.cfg)
    trainer.resume_or_load(resume=True)
    trainer.scheduler.step()
    head = max(group["lr"] for group in trainer.optimizer.param_groups)
    assert head == pytest.approx(0.02 * (1 - 5 / 8) ** 0.9)


def test_deeplabv3_of_detectron2_takes_one_feature_map(data, tmp_path):
    with pytest.raises(ValueError, match="IN_FEATURES must be one feature map"):
        prepare(request_of(data, tmp_path, "MODEL.SEM_SEG_HEAD.NAME", "DeepLabV3Head"))


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    """The run's model with a classifier that finds every class."""
    stored = torch.load(trained[0] / "model_final.pth", weights_only=True)
    torch.manual_seed(0)
    weight = stored["model"]["sem_seg_head.classifier.predictor.weight"]
    weight.copy_(torch.randn_like(weight))
    file = tmp_path_factory.mktemp("checkpoint") / "model_final.pth"
    torch.save(stored, file)
    return file


def accuracies(predictions: list, data: dict) -> tuple[float, float]:
    """mIoU and pixel accuracy, 0-100, by sets of pixels."""
    labels, _ = data["val"]
    predicted = np.concatenate([np.asarray(p).ravel() for p in predictions])
    truth = [np.asarray(Image.open(file)).ravel() for file in sorted(Path(labels).iterdir())]
    truth = np.concatenate(truth)
    predicted, truth = predicted[truth != 255], truth[truth != 255]
    ious = [
        ((predicted == c) & (truth == c)).sum() / ((predicted == c) | (truth == c)).sum()
        for c in range(len(CLASSES))
        if (truth == c).any()
    ]
    return 100 * np.mean(ious), 100 * np.mean(predicted == truth)


@pytest.mark.parametrize("scales", [(), (0.5, 1.0)], ids=["once", "windows"])
def test_a_checkpoint_is_evaluated_as_it_predicts(scales, checkpoint, data, tmp_path):
    opts = ["RESNEST.SEGMENT.SCALES", scales, "RESNEST.SEGMENT.BASE_SIZE", 64]
    opts += ["RESNEST.SEGMENT.WINDOW", 48]
    metrics = evaluate(checkpoint, val=data["val"], output_dir=tmp_path, opts=opts).metrics
    predictor = Predictor(checkpoint, device="cpu")
    assert predictor.class_names == list(CLASSES) and predictor.segments
    model = WindowedSegmentor.from_config(get_config(RECIPE, opts), predictor.model)
    files = sorted(Path(data["val"][1]).iterdir())
    with torch.inference_mode():
        found = [model([predictor.preprocess(file)])[0]["sem_seg"].argmax(0) for file in files]
    assert len(torch.cat(found).unique()) > 2
    assert accuracies(found, data) == pytest.approx(
        (metrics["sem_seg"]["mIoU"], metrics["sem_seg"]["pACC"]), rel=1e-9
    )
    if not scales:
        assert all(map(torch.equal, map(predictor, files), found))
        together = torch.stack(predictor.batch(files)) == torch.stack(found)
        assert together.float().mean() > 0.99  # rounding may exchange classes of equal scores
        assert found[0].shape == (64, 64) and found[0].dtype == torch.int64


def test_a_folder_is_predicted(checkpoint, data, tmp_path, capsys):
    labels, images = data["val"]
    arguments = ["predict", images, "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "label maps in labels, the areas" in capsys.readouterr().out
    predictor = Predictor(checkpoint, device="cpu")
    expected = predictor(Path(images, "000001.png")).numpy()
    with Image.open(tmp_path / "out" / "labels" / "000001.png.png") as written:
        assert written.mode == "P" and (np.asarray(written) == expected).mean() > 0.99
    with Image.open(tmp_path / "out" / "000001.png") as drawing:
        assert drawing.width == 64 and drawing.height > 64
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open(encoding="utf-8")))
    assert {row["file_name"] for row in rows} == {"000001.png", "000002.png"}
    assert sum(int(row["pixels"]) for row in rows) == 2 * 64 * 64
    assert all(CLASSES[int(row["class_number"])] == row["class"] for row in rows)
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "0 files predicted, 2 had been before" in capsys.readouterr().out


def test_a_class_is_explained(checkpoint, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("resnest_d2.analysis.saliency._STEPS", 4)
    labels, images = data["val"]
    file = str(Path(images, "000001.png"))
    options = ["--checkpoint", str(checkpoint), "--device", "cpu", "--out", str(tmp_path / "out")]
    of_data = ["--val-labels", labels, "--val-images", images]
    assert main(["explain", file, *options, *of_data, "--detection", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    predicted = Predictor(checkpoint, device="cpu")(file)
    counts = {CLASSES[n]: int((predicted == n).sum()) for n in predicted.unique()}
    areas = {own["class"]: own["area"] for own in record["detections"]}
    assert areas == {name: pytest.approx(count / 64**2) for name, count in counts.items()}
    assert list(areas.values()) == sorted(areas.values(), reverse=True)
    with np.load(tmp_path / "out" / "saliency_1.npz") as saved:
        label = CLASSES[int(saved["label"])]
        assert label == list(areas)[1] and saved["region"].sum() == counts[label]
    with np.load(tmp_path / "out" / "attention_by_class.npz") as saved:
        truths = [np.array(Image.open(f)) for f in Path(labels).iterdir()]
        expected = [sum((t == n).any() for t in truths) for n in range(len(CLASSES))]
        assert saved["num_images"].tolist() == expected
    text = _text(record, 0.5, classes=True)
    assert f": {len(areas)} classes\n  0 {list(areas)[0]} " in text
    assert "class 1: " in text and "is in its region" in text


def test_a_resumed_run_has_the_weights_of_a_whole_one(trained, data, tmp_path):
    run(request_of(data, tmp_path, val=()))
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "model_0000003.pth").unlink()
    run(request_of(data, tmp_path, val=(), resume=True))
    whole, resumed = weights(trained[0]), weights(tmp_path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_command_and_python_take_the_same_folders(trained, data, tmp_path, capsys):
    arguments = ["train", "--config-file", RECIPE, "--classes", str(data["classes"]), "--quiet"]
    for split in ("train", "val"):
        labels, images = data[split]
        arguments += [f"--{split}-labels", labels, f"--{split}-images", images]
    assert main([*arguments, *SMALL, "OUTPUT_DIR", str(tmp_path / "command")]) == 0
    train(
        RECIPE,
        train=data["train"],
        val=data["val"],
        classes=data["classes"],
        output_dir=tmp_path / "python",
        opts=SMALL,
        quiet=True,
    )
    expected = weights(trained[0])
    for folder in ("command", "python"):
        found = weights(tmp_path / folder)
        assert all(torch.equal(expected[name], found[name]) for name in expected), folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("RESNEST.SEGMENT.SCALES", "(0.5, 0)"),
        ("RESNEST.SEGMENT.SCALES", "('a',)"),
        ("RESNEST.SEGMENT.SCALES", "(1e999,)"),
        ("RESNEST.SEGMENT.WINDOW", "1"),
        ("MODEL.SEM_SEG_HEAD.LOSS_TYPE", "focal"),
        ("RESNEST.SEGMENT.BASE_SIZE", "-1"),
        ("RESNEST.JITTER.CROP", "-1"),
        ("SOLVER.BACKBONE_MULTIPLIER", "-1"),
        ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "3"),
        ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "-1"),
        ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "65535"),
        ("MODEL.RESNETS.DILATION_STYLE", "timm"),
    ],
)
def test_invalid_values_are_refused_by_their_key(key, value, data, tmp_path):
    with pytest.raises(ValueError, match=f"{key} must be"):
        prepare(request_of(data, tmp_path / "run", key, value))


@pytest.mark.parametrize("on_bad_data", ["refuse", "skip"])
def test_unusable_label_maps_are_refused_or_left_out(on_bad_data, tmp_path):
    data = write_label_set(tmp_path / "data", train=6)
    wrong = Path(data["train"][0], "000002.png")
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(wrong)
    request = request_of(data, tmp_path / "run", on_bad_data=on_bad_data)
    if on_bad_data == "refuse":
        with pytest.raises(ValueError, match=r"000002\.png: label-value: values \[77\]"):
            prepare(request)
        return
    plan = prepare(request)
    assert len(plan.data_sets[0].pairs) == 5
    listed = json.loads((tmp_path / "run" / "bad_data.json").read_text())["problems"]
    assert [problem["file"] for problem in listed] == [str(wrong)]


def test_other_classes_start_new_predictors(trained, tmp_path):
    data = write_label_set(tmp_path / "data", train=4)
    Path(data["classes"]).write_text("\n".join([*CLASSES, "more"]))
    opts = ("SOLVER.MAX_ITER", "1", "MODEL.WEIGHTS", str(trained[0] / "model_final.pth"))
    run(request_of(data, tmp_path / "run", *opts))
    found = weights(tmp_path / "run")["sem_seg_head.classifier.predictor.weight"]
    assert len(found) == len(CLASSES) + 1
    with pytest.raises(ValueError, match="for 6 classes, the model for 7.*--init-from"):
        prepare(request_of(data, trained[0], resume=True))


def test_masks_of_0_and_255_are_explained(tmp_path, caplog):
    data = write_label_set(tmp_path / "data", train=2)
    for file in Path(data["train"][0]).iterdir():
        labels = np.asarray(Image.open(file))
        Image.fromarray(np.where(labels == 0, 0, 255).astype(np.uint8)).save(file)
    prepare(request_of(data, tmp_path / "run"))
    (warning,) = (r for r in caplog.records if "label map has a pixel of" in r.message)
    assert warning.levelname == "WARNING" and "have the value 255, which is" in warning.message


def test_validation_without_a_labelled_pixel_is_refused(tmp_path):
    data = write_label_set(tmp_path / "data", train=2, val=2)
    for file in Path(data["val"][0]).iterdir():
        Image.new("L", (64, 64), 255).save(file)
    with pytest.raises(ValueError, match="all pixels are ignored"):
        prepare(request_of(data, tmp_path / "run"))


def test_a_long_thin_image_is_trained_on(tmp_path):
    data = write_label_set(tmp_path / "data", train=1)
    labels, images = map(Path, data["train"])
    for folder, mode in ((labels, "L"), (images, "RGB")):
        Image.new(mode, (900, 2)).save(next(folder.iterdir()))
    run(request_of(data, tmp_path / "run", "SOLVER.MAX_ITER", "1", val=()))
    assert (tmp_path / "run" / "model_final.pth").is_file()


def test_no_auxiliary_head_is_built_for_a_weight_of_0(data, tmp_path):
    cfg = get_config(RECIPE, [*SMALL, "MODEL.SEM_SEG_HEAD.AUX_LOSS_WEIGHT", "0"])
    assert meta_model(cfg).sem_seg_head.aux_head is None


def test_classes_must_be_given_and_fit(data, tmp_path):
    request = request_of(data, tmp_path / "run")
    with pytest.raises(ValueError, match="give --classes FILE"):
        prepare(dataclasses.replace(request, classes=None))
    few = tmp_path / "few.txt"
    few.write_text("ground\nshape\n")
    with pytest.raises(ValueError, match="label-value"):
        prepare(dataclasses.replace(request, classes=str(few)))
    opts = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "5")
    with pytest.raises(ValueError, match="NUM_CLASSES must be at least 6"):
        prepare(request_of(data, tmp_path / "run", *opts))

"""Classification of images in folders of classes, from the check to prediction."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from class_sets import CLASSES, ITERATIONS, write_class_set
from runs import SMALL_NETWORK

from resnest_d2 import Predictor, evaluate, optimize_for_inference, train
from resnest_d2.data import sample_set
from resnest_d2.engine import RunRequest, Trainer, prepare, run
from resnest_d2.export import export_checkpoint, open_file
from resnest_d2_command import main

SMALL = (
    *(*SMALL_NETWORK, *ITERATIONS, "SEED", "1", "DATALOADER.NUM_WORKERS", "0"),
    *("RESNEST.CLASSIFIER.TRAIN_SIZE", "32", "RESNEST.CLASSIFIER.TEST_SIZE", "32"),
    *("SOLVER.IMS_PER_BATCH", "4"),
    *("SOLVER.MAX_ITER", "4", "SOLVER.WARMUP_ITERS", "1", "SOLVER.CHECKPOINT_PERIOD", "2"),
    *("RESNEST.AUTO_SCALE", "False", "SOLVER.BASE_LR", "0.02"),
)
RECIPE = "classify_resnest50"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_class_set(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run's folder and its metrics."""
    folder = tmp_path_factory.mktemp("run")
    return folder, run(request_of(data, folder))


def request_of(data: dict, folder, *opts: str, **kwargs) -> RunRequest:
    kwargs = {"train": (("", data["train"]),), "val": (("", data["val"]),), **kwargs}
    return RunRequest(RECIPE, (*SMALL, "OUTPUT_DIR", str(folder), *opts), **kwargs)


def weights(folder) -> dict:
    return torch.load(Path(folder) / "model_final.pth", weights_only=True)["model"]


def test_a_run_on_class_folders_is_evaluated_by_class(trained):
    folder, metrics = trained
    accuracies = metrics["classification"]
    assert accuracies.keys() == {"top1", "top5", "class_mean", *(f"top1-{c}" for c in CLASSES)}
    assert accuracies["top5"] == 100  # of three classes
    by_class = [accuracies[f"top1-{name}"] for name in CLASSES]
    assert accuracies["top1"] == pytest.approx(sum(by_class) / 3)
    lines = (folder / "metrics.json").read_text(encoding="utf-8").splitlines()
    assert {"classification/top1", "total_loss"} <= set().union(*map(json.loads, lines))
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert weights(folder)["linear.weight"].shape[0] == 3
    assert "3, of 8 to 8 images" in log and "32 x 32 pixels, from crops of 10 to 100 %" in log


def test_the_rate_is_a_cosine_after_a_linear_warm_up(data, tmp_path):
    opts = ("SOLVER.MAX_ITER", "6", "SOLVER.WARMUP_ITERS", "2")
    trainer = Trainer(prepare(request_of(data, tmp_path, *opts, val=())).cfg)
    seen, step = [], trainer.run_step

    def run_step():
        seen.append([group["lr"] for group in trainer.optimizer.param_groups][0])
        step()

    trainer.run_step = run_step
    trainer.train()
    cosine = [0.5 * (1 + torch.cos(torch.tensor(torch.pi * t / 4)).item()) for t in range(4)]
    assert seen == pytest.approx([0, 0.01, *(0.02 * value for value in cosine)], rel=1e-6)


def test_norms_and_biases_do_not_decay(data, tmp_path):
    trainer = Trainer(prepare(request_of(data, tmp_path, val=())).cfg)
    decays = {
        id(parameter): group["weight_decay"]
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in trainer.model.named_parameters():
        expected = 1e-4 if name.endswith(".weight") and parameter.dim() > 1 else 0
        assert decays[id(parameter)] == expected, name


def test_a_checkpoint_is_evaluated_as_it_predicts(trained, data, tmp_path):
    folder, metrics = trained
    again = evaluate(folder, val=data["val"], output_dir=tmp_path, quiet=True)
    assert again.metrics["classification"] == pytest.approx(metrics["classification"])
    predictor = Predictor(folder, device="cpu")
    assert predictor.classifies and predictor.class_names == list(CLASSES)
    file = tmp_path / "inference" / "classification_predictions.json"
    for found in json.loads(file.read_text(encoding="utf-8")):
        probabilities = predictor(Path(data["val"], found["file_name"]))
        assert probabilities.shape == (3,)
        values = dict(zip(found["classes"], found["probabilities"], strict=True))
        expected = torch.tensor([values[number] for number in range(3)])
        torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-5)
        assert found["label"] == CLASSES.index(Path(found["file_name"]).parent.name)


def test_predict_writes_the_best_classes(trained, data, tmp_path, capsys):
    arguments = ["--checkpoint", str(trained[0]), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["predict", *arguments, data["val"]]) == 0
    assert "the results are in predictions.csv" in capsys.readouterr().out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {".journal.jsonl.lock", "journal.jsonl", "predictions.csv"}
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 * 3
    predictor = Predictor(trained[0], device="cpu")
    for rank, row in enumerate(rows[:3], 1):
        values, numbers = predictor(Path(data["val"], row["file_name"])).sort(descending=True)
        assert (row["rank"], row["class_number"]) == (str(rank), str(int(numbers[rank - 1])))
        assert row["class"] == CLASSES[int(row["class_number"])]
        assert float(row["probability"]) == pytest.approx(float(values[rank - 1]), abs=1e-5)


def test_a_resumed_run_ends_with_the_same_weights(trained, data, tmp_path):
    for name in ("model_0000001.pth", "last_checkpoint", "config.yaml"):
        if (trained[0] / name).exists():
            shutil.copy(trained[0] / name, tmp_path / name)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth", encoding="utf-8")
    run(request_of(data, tmp_path, resume=True))
    found = weights(tmp_path)
    for name, value in weights(trained[0]).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_a_classifier_starts_a_detector(trained, tmp_path):
    """Its backbone as a whole; the linear layer is not used, and the log says so."""
    statistics = ("MODEL.PIXEL_MEAN", "[123.675, 116.28, 103.53]")
    statistics += ("MODEL.PIXEL_STD", "[58.395, 57.12, 57.375]")
    options = (
        *SMALL_NETWORK,
        *statistics,
        *("OUTPUT_DIR", str(tmp_path), "SOLVER.IMS_PER_BATCH", "2"),
        *("MODEL.WEIGHTS", str(trained[0] / "model_final.pth"), "DATALOADER.NUM_WORKERS", "0"),
        *("INPUT.MIN_SIZE_TRAIN", "(64, 64)", "SOLVER.MAX_ITER", "2", "SEED", "1"),
        *("MODEL.BACKBONE.FREEZE_AT", "0"),
    )
    shapes = sample_set(tmp_path / "shapes", image_size=64, train_images=2, val_images=1)
    plan = prepare(RunRequest("mask_rcnn_resnest50_fpn", options, train=(shapes["train"],)))
    trainer = Trainer(plan.cfg)
    trainer.resume_or_load(resume=False)
    _, match = trainer.checkpointer.loaded
    assert sorted(match.unexpected) == ["linear.bias", "linear.weight"]
    ours = trainer.model.backbone.bottom_up.state_dict()
    for name, value in weights(trained[0]).items():
        if name.startswith("backbone."):
            torch.testing.assert_close(ours[name.removeprefix("backbone.")], value)


def test_other_classes_start_a_new_last_layer(trained, data, tmp_path):
    for name in CLASSES[:2]:
        shutil.copytree(Path(data["train"], name), tmp_path / "two" / name)
    folder = tmp_path / "run"
    result = train(
        RECIPE,
        train=tmp_path / "two",
        output_dir=folder,
        init_from=trained[0],
        opts=[*SMALL, "SOLVER.BASE_LR", "0"],
        quiet=True,
    )
    before, after = weights(trained[0]), weights(result.checkpoint.parent)
    assert after["linear.weight"].shape[0] == 2
    name = "backbone.res5.0.conv1.weight"
    torch.testing.assert_close(after[name], before[name])
    assert "(3 -> 2)" in (folder / "log.txt").read_text(encoding="utf-8")


def test_data_of_another_task_is_refused(trained, data, tmp_path, capsys):
    pytest.importorskip("captum")
    image = str(Path(data["val"], "red", "0.png"))
    options = ["--checkpoint", str(trained[0]), "--out", str(tmp_path / "out"), image]
    assert main(["explain", *options, "--val-json", image, "--val-images", data["val"]]) == 2
    assert f"give --val-images without {image}" in capsys.readouterr().err
    run = ["report", str(trained[0]), "--out", str(tmp_path / "r.html")]
    assert main([*run, "--val-labels", data["val"], "--val-images", data["val"]]) == 2
    assert "was evaluated on class folders" in capsys.readouterr().err


# ---- refusals ----


def test_a_warm_up_as_long_as_the_training_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="SOLVER.WARMUP_ITERS 4 must be below SOLVER.MAX_ITER 4"):
        prepare(request_of(data, tmp_path, "SOLVER.WARMUP_ITERS", "4"))


def test_annotations_are_refused(data, tmp_path):
    pair = ("instances.json", data["train"])
    with pytest.raises(ValueError, match="instances.json is not for an ImageClassifier"):
        prepare(request_of(data, tmp_path, train=(pair,)))


def test_a_detector_needs_annotations(data, tmp_path):
    request = RunRequest(
        "mask_rcnn_resnest50_fpn", ("OUTPUT_DIR", str(tmp_path)), train=(("", data["train"]),)
    )
    with pytest.raises(ValueError, match="a GeneralizedRCNN needs them: give --train-json"):
        prepare(request)


def test_images_of_a_new_class_are_refused_or_left_out(data, tmp_path):
    shutil.copytree(data["val"], tmp_path / "val")
    shutil.copytree(tmp_path / "val" / "red", tmp_path / "val" / "rot")
    val = (("", str(tmp_path / "val")),)
    with pytest.raises(ValueError, match="new-class.*(\n.*)*val/rot"):
        prepare(request_of(data, tmp_path / "run", val=val))
    plan = prepare(request_of(data, tmp_path / "run", val=val, on_bad_data="skip"))
    assert len(plan.data_sets[1].images) == 12
    listed = json.loads((tmp_path / "run" / "bad_data.json").read_text(encoding="utf-8"))
    assert "new-class" in json.dumps(listed)


def test_a_checkpoint_with_other_classes_is_refused(trained, data, tmp_path):
    shutil.copytree(data["val"], tmp_path / "val")
    (tmp_path / "val" / "red").rename(tmp_path / "val" / "rot")
    with pytest.raises(ValueError, match="new-class.*(\n.*)*class 'rot'"):
        evaluate(trained[0], val=tmp_path / "val", output_dir=tmp_path / "out", quiet=True)


def test_a_renamed_class_that_moves_others_is_refused(trained, data, tmp_path):
    """By number: ``green`` and ``red`` would be taken for each other's neighbours."""
    folders = {split: tmp_path / split for split in ("train", "val")}
    for split, folder in folders.items():
        shutil.copytree(data[split], folder)
        (folder / "blue").rename(folder / "violet")  # the last one now
    shutil.copytree(trained[0], tmp_path / "run")
    pairs = {split: (("", str(folder)),) for split, folder in folders.items()}
    with pytest.raises(ValueError, match="must have the same number in both"):
        prepare(request_of(data, tmp_path / "run", resume=True, **pairs))


def test_notes_on_the_data_are_shown_and_in_the_log_file(data, tmp_path, capsys):
    val, out = tmp_path / "val", tmp_path / "run"
    shutil.copytree(data["val"], val)
    shutil.rmtree(val / "red")
    arguments = ["--config-file", RECIPE, "--train-images", data["train"], "--val-images", str(val)]
    opts = [*SMALL, "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(out)]
    assert main(["train", *arguments, *opts]) == 0
    for text in (capsys.readouterr().out, (out / "log.txt").read_text(encoding="utf-8")):
        for message in ("missing-class: class 'red'", "NUM_CLASSES is now 3"):
            assert text.count(message) == 1, message


def test_a_folder_whose_name_is_not_utf_8_is_a_class(data, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(data[split], tmp_path / split)
        folder = os.fsencode(tmp_path / split)
        os.rename(os.path.join(folder, b"red"), os.path.join(folder, b"caf\xe9"))
    kwargs = {"train": tmp_path / "train", "val": tmp_path / "val", "quiet": True}
    opts = [*SMALL, "SOLVER.MAX_ITER", "2"]
    found = train(RECIPE, output_dir=tmp_path / "run", opts=opts, **kwargs).metrics
    assert r"top1-caf\udce9" in found["classification"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("RESNEST.CLASSIFIER.CROP_AREA", "('a', 1)"),
        ("RESNEST.CLASSIFIER.RANDAUGMENT", "('a', 1)"),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
        ("DATALOADER.ASPECT_RATIO_GROUPING", "True"),
        ("OUTPUT_DIR", ""),
    ],
)
def test_invalid_values_are_refused_by_their_key(key, value, data, tmp_path):
    with pytest.raises(ValueError, match=f"{key} must be"):
        prepare(request_of(data, tmp_path / "run", key, value))


def test_an_output_folder_that_is_a_file_is_refused_and_kept(data, tmp_path):
    """Detectron2 takes a name that ends in .txt for a log file."""
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for folder in (file, file / "run"):
        with pytest.raises(ValueError, match=r"OUTPUT_DIR must be.*notes\.txt is a file"):
            run(request_of(data, folder))
    assert file.read_text() == "mine"


def test_classes_in_another_order_are_refused(trained, data, tmp_path):
    """By the run that is resumed, and by an evaluation with a config."""
    names = tmp_path / "names.json"
    turned = dict(zip(CLASSES, (*CLASSES[1:], CLASSES[0]), strict=True))
    names.write_text(json.dumps(turned), encoding="utf-8")
    shutil.copytree(trained[0], tmp_path / "run")
    request = request_of(data, tmp_path / "run", resume=True, classes=str(names))
    with pytest.raises(ValueError, match="must have the same number in both"):
        prepare(request)
    opts = ("MODEL.WEIGHTS", str(trained[0] / "model_final.pth"))
    request = request_of(
        data, tmp_path / "out", *opts, train=(), eval_only=True, classes=str(names)
    )
    with pytest.raises(ValueError, match="must have the same number in both"):
        prepare(request)


def test_a_run_with_named_classes_is_evaluated_with_the_names(data, tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({c: f"{c} stripes" for c in CLASSES}), encoding="utf-8")
    opts = [*SMALL, "SOLVER.MAX_ITER", "2"]
    kwargs = {"classes": names, "quiet": True}
    train(RECIPE, train=data["train"], output_dir=tmp_path / "run", opts=opts, **kwargs)
    found = evaluate(tmp_path / "run", val=data["val"], **kwargs).metrics
    assert "top1-red stripes" in found["classification"]
    with pytest.raises(ValueError, match="--classes FILE gives folders other names"):
        evaluate(tmp_path / "run", val=data["val"], quiet=True)


# ---- export, optimize, explain ----


@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_an_exported_file_gives_the_probabilities(format, trained, data, tmp_path):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    images = [str(Path(data["val"], name, "1.png")) for name in CLASSES]
    made = export_checkpoint(trained[0], tmp_path / "file", format=format, images=images)
    assert made.agreement.images == 3 and made.agreement.scores < 1e-4
    assert made.metadata["part"] == "classifier" and made.metadata["outputs"] == ["scores"]
    assert made.metadata["centre_crop"] == {"share_of_short_side": 0.5, "resized_to": 32}
    run, _ = open_file(str(tmp_path / "file"), format)
    predictor = Predictor(trained[0], device="cpu")
    for image in images:
        (scores,) = run(predictor.preprocess(image)["image"].float().numpy()).values()
        torch.testing.assert_close(torch.tensor(scores), predictor(image), rtol=0, atol=1e-4)


def test_an_optimised_classifier_gives_the_same_probabilities(trained, data):
    predictor = Predictor(trained[0], device="cpu")
    fast = optimize_for_inference(predictor.model, compile=False, dtype=torch.float32)
    inputs = [predictor.preprocess(Path(data["val"], name, "2.png")) for name in CLASSES]
    with torch.no_grad():
        for ours, theirs in zip(fast(inputs), predictor.model(inputs), strict=True):
            torch.testing.assert_close(
                ours["probabilities"], theirs["probabilities"], rtol=0, atol=1e-5
            )


def test_explain_shows_the_most_likely_classes(trained, data, tmp_path, capsys):
    pytest.importorskip("captum")
    image = str(Path(data["val"], "red", "0.png"))
    options = ["--checkpoint", str(trained[0]), "--device", "cpu", "--out", str(tmp_path / "out")]
    options += ["--val-images", data["val"], "--json", image]
    assert main(["explain", *options]) == 0
    record = json.loads(capsys.readouterr().out)
    probabilities = Predictor(trained[0], device="cpu")(image)
    scores, numbers = probabilities.sort(descending=True)
    assert [own["class"] for own in record["detections"]] == [CLASSES[int(n)] for n in numbers]
    assert [own["score"] for own in record["detections"]] == pytest.approx(scores.tolist())
    with np.load(tmp_path / "out" / "saliency_0.npz") as saved:
        difference = float(scores[0]) - record["saliency"]["baseline_score"]
        error = record["saliency"]["error"]
        assert saved["attribution"].sum() == pytest.approx(difference + error, abs=1e-5)
    assert {Path(file).name for file in record["files"]} >= {"attention_by_class.npz"}

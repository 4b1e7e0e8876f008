"""Files into a folder: all that can be read, once, whatever happens in between."""

import contextlib
import csv
import json
import os
import resource
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import finish, start, wait_for
from detectors import save_detector
from PIL import Image
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from runs import tiny_request

from detectron2.structures import Boxes, Instances, ROIMasks

from resnest_d2 import Predictor
from resnest_d2.data import sample_set
from resnest_d2.engine import run as run_training
from resnest_d2.files import is_write_failure
from resnest_d2.predict import many_files as run
from resnest_d2.predict.journal import JOURNAL
from resnest_d2.predict.many_files import predict_files

SMALL = ("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    return save_detector(tmp_path_factory.mktemp("model") / "model.pth", "mask", *SMALL)


@pytest.fixture(scope="module")
def predictor(checkpoint):
    predictor = Predictor(checkpoint, device="cpu", score_threshold=0.32)
    assert sum(len(found) for found in predictor.batch([picture(1), picture(2)])) > 3
    return predictor


@pytest.fixture
def calls(monkeypatch):
    """The number of pictures in each call of a model."""
    numbers = []
    batch = Predictor.batch

    def counted(self, images, **options):
        numbers.append(len(images))
        return batch(self, images, **options)

    monkeypatch.setattr(Predictor, "batch", counted)
    return numbers


def picture(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_images(folder: Path, number: int) -> Path:
    """Pictures ``00.png`` …, every other one of another size, the odd ones in ``sub``."""
    (folder / "sub").mkdir(parents=True)
    for i in range(number):
        name = f"sub/{i:02}.png" if i % 2 else f"{i:02}.png"
        Image.fromarray(picture(i, height=40 + 8 * (i % 3))).save(folder / name)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files but for the hidden ones, and the journal's stamps."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and file.name != JOURNAL
    }


def names_done(folder: Path) -> list[str]:
    """In the journal, with repetitions."""
    lines = (folder / JOURNAL).read_text().splitlines()[1:]
    return [json.loads(line)["name"] for line in lines]


def test_results_are_what_the_predictor_finds(predictor, tmp_path):
    pictures = write_images(tmp_path / "pictures", 5)
    done = predict_files(predictor, [pictures], tmp_path / "out", batch_size=2)
    assert (done.predicted, done.earlier, done.failed, done.notes) == (5, 0, {}, {})

    truth = COCO(tmp_path / "out" / "images.json")
    results = truth.loadRes(str(tmp_path / "out" / "predictions.json"))
    assert {c["id"]: c["name"] for c in truth.loadCats([1, 2, 3])} == {1: "ant", 2: "bee", 3: "cow"}
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert len(rows) == len(results.anns) == done.instances > 5
    rows = iter(rows)
    assert [image["id"] for image in truth.imgs.values()] == [1, 2, 3, 4, 5]
    for image in truth.imgs.values():
        expected = predictor(pictures / image["file_name"])
        assert (image["height"], image["width"]) == expected.image_size
        found = results.loadAnns(results.getAnnIds(image["id"]))
        assert len(found) == len(expected)
        boxes = np.array([f["bbox"] for f in found]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, expected.pred_boxes.tensor, rtol=0, atol=1e-3)
        np.testing.assert_allclose([f["score"] for f in found], expected.scores, rtol=0, atol=1e-5)
        classes = [f["category_id"] - 1 for f in found]
        assert classes == expected.pred_classes.tolist()
        masks = [mask_util.decode(f["segmentation"]) for f in found]
        np.testing.assert_array_equal(np.array(masks), expected.pred_masks)
        for instance, row in zip(found, rows, strict=False):
            assert row["file_name"] == image["file_name"]
            assert row["image_id"] == str(image["id"])
            assert row["category_id"] == str(instance["category_id"])
            assert row["class"] == predictor.class_names[instance["category_id"] - 1]
            assert float(row["score"]) == instance["score"]
            assert [float(row[key]) for key in ("x", "y", "width", "height")] == instance["bbox"]
    drawn = np.asarray(Image.open(tmp_path / "out" / "sub" / "03.png"))
    original = np.asarray(Image.open(pictures / "sub" / "03.png"))
    np.testing.assert_array_equal(drawn, predictor.draw(original, predictor(original)))


def test_category_ids_are_the_training_datas_where_they_are_known(tmp_path):
    path = save_detector(tmp_path / "model.pth", "faster", *SMALL)
    stored = torch.load(path, weights_only=True)
    stored["resnest_d2"]["category_ids"] = [7, 3, 90]
    torch.save(stored, path)
    Image.fromarray(picture(1)).save(tmp_path / "1.png")
    predictor = Predictor(path, device="cpu", score_threshold=0.2)
    out = tmp_path / "out"
    predict_files(predictor, [tmp_path / "1.png"], out, picture_format="none")
    images = json.loads((out / "images.json").read_text())
    assert [category["id"] for category in images["categories"]] == [7, 3, 90]
    assert images["info"]["category_ids"] == "of the training data"
    found = json.loads((out / "predictions.json").read_text())
    expected = predictor(picture(1)).pred_classes.tolist()
    assert [f["category_id"] for f in found] == [[7, 3, 90][label] for label in expected] != []
    assert "1.png" not in os.listdir(out)


def test_category_ids_travel_from_training_to_the_results(tmp_path):
    data = sample_set(tmp_path, image_size=64, train_images=4, val_images=1)
    content = json.loads(Path(data["train"][0]).read_text())
    ids = dict(zip(range(1, 6), (3, 7, 12, 50, 90), strict=True))
    for entry in content["categories"]:
        entry["id"] = ids[entry["id"]]
    for entry in content["annotations"]:
        entry["category_id"] = ids[entry["category_id"]]
    file = tmp_path / "train.json"
    file.write_text(json.dumps(content))
    data["train"] = (str(file), data["train"][1])
    run_training(tiny_request(data, tmp_path / "run", val=()))
    predictor = Predictor(tmp_path / "run", device="cpu", score_threshold=0.0)
    assert predictor.category_ids == [*ids.values()]
    shown = picture(1)
    Image.fromarray(shown).save(tmp_path / "1.png")
    out = tmp_path / "out"
    predict_files(predictor, [tmp_path / "1.png"], out, picture_format="none")
    found = [f["category_id"] for f in json.loads((out / "predictions.json").read_text())]
    labels = predictor(shown).pred_classes.tolist()
    assert found == [predictor.category_ids[label] for label in labels] != []


def test_keypoints_are_in_the_results(tmp_path):
    path = save_detector(tmp_path / "model.pth", "keypoint", *SMALL)
    Image.fromarray(picture(1)).save(tmp_path / "1.png")
    predictor = Predictor(path, device="cpu", score_threshold=0.1)
    predict_files(predictor, [tmp_path / "1.png"], tmp_path / "out")
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    expected = predictor(picture(1)).pred_keypoints.clone()
    expected[:, :, :2] -= 0.5  # in COCO they are pixel indices
    assert len(found) == len(expected) > 0
    actual = torch.tensor([f["keypoints"] for f in found])
    torch.testing.assert_close(actual, expected.flatten(1))


def test_files_that_cannot_be_read_are_listed_and_the_others_done(predictor, tmp_path):
    pictures = write_images(tmp_path / "pictures", 3)
    (pictures / "empty.png").touch()
    (pictures / "00_text.jpg").write_text("no picture")
    Image.fromarray(picture(1)).resize((1, 1)).save(pictures / "one.png")
    Image.fromarray(picture(1, 1, 3000)).save(pictures / "thin.png")
    out = tmp_path / "out"
    done = predict_files(predictor, [pictures], out, batch_size=2)
    assert done.predicted == 5 and set(done.failed) == {"empty.png", "00_text.jpg"}
    assert dict(csv.reader((out / "failed.csv").open())) == {"file_name": "reason", **done.failed}

    Image.fromarray(picture(9)).save(pictures / "empty.png")  # mended
    (pictures / "00_text.jpg").unlink()
    done = predict_files(predictor, [pictures], out)
    assert (done.predicted, done.earlier, done.failed) == (1, 5, {})
    assert not (out / "failed.csv").exists()


def test_an_empty_result_is_a_result(checkpoint, tmp_path):
    predictor = Predictor(checkpoint, device="cpu", score_threshold=1.0)
    Image.fromarray(picture(1)).save(tmp_path / "1.png")
    assert predict_files(predictor, [tmp_path / "1.png"], tmp_path / "out").instances == 0
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == []
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 1


def test_a_second_call_does_only_what_is_new_or_changed(predictor, tmp_path, calls):
    pictures = write_images(tmp_path / "pictures", 4)
    out = tmp_path / "out"
    predict_files(predictor, [pictures], out)
    before = contents(out)
    assert predict_files(predictor, [pictures], out).earlier == 4
    assert contents(out) == before and sum(calls) == 4

    Image.fromarray(picture(7, 80, 80)).save(pictures / "00.png")
    Image.fromarray(picture(8)).save(pictures / "99.png")
    done = predict_files(predictor, [pictures], out)
    assert (done.predicted, done.earlier, sum(calls)) == (2, 3, 6)
    images = json.loads((out / "images.json").read_text())["images"]
    assert [i["file_name"] for i in images] == [*names_done(out)[:4], "99.png"]
    assert images[0] == {"id": 1, "file_name": "00.png", "width": 80, "height": 80}
    assert Image.open(out / "00.png").size == (80, 80)


def test_other_settings_need_another_folder(predictor, checkpoint, tmp_path):
    pictures = write_images(tmp_path / "pictures", 2)
    predict_files(predictor, [pictures], tmp_path / "out")
    other = Predictor(checkpoint, device="cpu", score_threshold=0.3)
    with pytest.raises(ValueError, match=r"score_threshold 0\.32 \(now 0\.3\)\. Name another"):
        predict_files(other, [pictures], tmp_path / "out")
    with pytest.raises(ValueError, match="pictures png .now jpg.*root .*pictures .now .*sub"):
        predict_files(predictor, [pictures / "sub"], tmp_path / "out", picture_format="jpg")


def test_the_sources_themselves_are_no_place_for_results(predictor, tmp_path, calls):
    pictures = write_images(tmp_path / "pictures", 1)
    before = contents(pictures)
    with pytest.raises(ValueError, match="no images in"):  # all lie in the folder of the results
        predict_files(predictor, [pictures], pictures)
    with pytest.raises(FileExistsError, match="pictures holds files"):
        predict_files(predictor, [pictures / "00.png"], pictures)
    assert contents(pictures) == before and not calls


def test_few_pictures_are_in_memory_at_a_time(predictor, tmp_path, monkeypatch):
    """Batches end at a number of pixels, and one batch is read ahead."""
    pictures = write_images(tmp_path / "pictures", 12)
    monkeypatch.setattr(run, "_BATCH_PIXELS", 3 * 56 * 56)
    read, predicted, ahead = [], [], []
    read_image, batch = run.read_image, predictor.batch

    def count_read(path, intensity):
        assert intensity is predictor.intensity
        read.append(path)
        return read_image(path, intensity)

    def count_batch(images, **options):
        ahead.append(len(read) - len(predicted))
        predicted.extend(images)
        return batch(images, **options)

    monkeypatch.setattr(run, "read_image", count_read)
    monkeypatch.setattr(predictor, "batch", count_batch)
    done = predict_files(predictor, [pictures], tmp_path / "out", batch_size=8)
    assert done.predicted == len(predicted) == 12
    assert len(ahead) >= 4 and max(ahead) <= 6  # two batches of three


def test_a_huge_picture_is_drawn_smaller(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_DRAWN_SIDE", 28)
    Image.fromarray(picture(1)).save(tmp_path / "1.png")
    predict_files(predictor, [tmp_path / "1.png"], tmp_path / "out", picture_format="jpg")
    assert Image.open(tmp_path / "out" / "1.jpg").size == (28, 20)
    images = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert (images[0]["width"], images[0]["height"]) == (56, 40)


@pytest.mark.parametrize("drawn_side", [28, 4096])
def test_no_mask_is_pasted_into_its_whole_image(predictor, tmp_path, monkeypatch, drawn_side):
    monkeypatch.setattr(run, "_DRAWN_SIDE", drawn_side)
    monkeypatch.setattr(ROIMasks, "to_bitmasks", None)  # how Detectron2 pastes them
    pictures = write_images(tmp_path / "pictures", 3)
    done = predict_files(predictor, [pictures], tmp_path / "out")
    results = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert not done.failed and done.instances > 3
    assert any(mask_util.area(result["segmentation"]) for result in results)


def test_shrunk_boxes_and_masks_stay_where_they_are():
    pixels = picture(1)
    masks = torch.zeros(2, 40, 56, dtype=torch.bool)
    masks[:, 10:20, 28:] = True
    boxes = Boxes(torch.tensor([[28.0, 10, 56, 20]] * 2))
    found = Instances((40, 56), pred_boxes=boxes, pred_masks=masks, scores=torch.ones(2))
    small_pixels, small = run._shrink(pixels, found, 0.5)
    assert small_pixels.shape == (20, 28, 3) and small.image_size == (20, 28)
    assert small.pred_boxes.tensor.unique(dim=0).tolist() == [[14, 5, 28, 10]]
    expected = torch.zeros(20, 28, dtype=torch.bool)
    expected[5:10, 14:] = True
    assert (small.pred_masks == expected).all() and len(small) == 2
    assert boxes.tensor.max() == 56  # the original is as it was


def test_killed_and_started_again_nothing_is_done_twice_or_missing(
    predictor, checkpoint, tmp_path, calls
):
    pictures = write_images(tmp_path / "pictures", 30)
    (pictures / "25_cut.png").write_bytes((pictures / "00.png").read_bytes()[:900])
    predict_files(predictor, [pictures], tmp_path / "whole", batch_size=1)
    del calls[:]

    out, log = tmp_path / "out", tmp_path / "log"
    command = ["-m", "resnest_d2.cli", "predict", pictures, "--checkpoint", checkpoint]
    command += ["--score-threshold", 0.32, "--device", "cpu", "--batch-size", 1, "--out", out]
    process = start(command, log)
    wait_for(lambda: (out / JOURNAL).exists() and len(names_done(out)) > 4, process, log)
    process.send_signal(signal.SIGKILL)
    assert finish(process) == -signal.SIGKILL
    before = names_done(out)
    assert 4 < len(before) < 30 and not (out / "predictions.json").exists()
    (out / ".20.png.123.tmp").write_bytes(b"half a picture")  # as a process leaves it behind

    done = predict_files(predictor, [pictures], out, batch_size=1)
    assert (done.earlier, done.predicted, list(done.failed)) == (
        len(before),
        30 - len(before),
        ["25_cut.png"],
    )
    assert sum(calls) == 30 - len(before)
    assert set(Counter(names_done(out)).values()) == {1}
    assert contents(out) == contents(tmp_path / "whole")
    assert not list(out.rglob("*.tmp"))


def test_a_file_that_changes_while_it_is_predicted_is_predicted_again(
    predictor, tmp_path, monkeypatch
):
    pictures = write_images(tmp_path / "pictures", 3)
    read = run.read_image

    def read_and_replace(path, *args):
        found = read(path, *args)
        if path.name == "01.png":
            Image.fromarray(picture(9, height=24)).save(path)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(run, "read_image", read_and_replace)
        assert predict_files(predictor, [pictures], tmp_path / "out").predicted == 3
    again = predict_files(predictor, [pictures], tmp_path / "out")
    assert (again.predicted, again.earlier) == (1, 2)
    images = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert {i["file_name"]: i["height"] for i in images}["sub/01.png"] == 24


def test_a_file_of_another_size_or_of_another_time_is_predicted_again(predictor, tmp_path):
    pictures = write_images(tmp_path / "pictures", 3)
    predict_files(predictor, [pictures], tmp_path / "out")
    first, second, _ = sorted(pictures.rglob("*.png"))
    for file, bytes_added, nanoseconds_added in ((first, b" ", 0), (second, b"", 10**9)):
        before = file.stat()
        file.write_bytes(file.read_bytes() + bytes_added)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + nanoseconds_added))
    again = predict_files(predictor, [pictures], tmp_path / "out")
    assert (again.predicted, again.earlier) == (2, 1)


@contextlib.contextmanager
def full_disk(num_bytes: int):
    """No file grows beyond this: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("picture_format", ["png", "none"], ids=["drawing", "journal"])
def test_a_full_disk_leaves_nothing_half_written(picture_format, predictor, tmp_path, calls):
    pictures = write_images(tmp_path / "pictures", 8)
    arguments = {"batch_size": 1, "picture_format": picture_format}
    predict_files(predictor, [pictures], tmp_path / "whole", **arguments)
    whole = contents(tmp_path / "whole")
    journal = (tmp_path / "whole" / JOURNAL).stat().st_size
    limit = journal // 2 if picture_format == "none" else min(map(len, whole.values())) + 1
    with full_disk(limit), pytest.raises(OSError, match="too large") as info:
        predict_files(predictor, [pictures], tmp_path / "out", **arguments)
    assert is_write_failure(info.value)
    for name, data in contents(tmp_path / "out").items():
        assert data == whole[name]  # no file has its name before it is whole
    assert not list((tmp_path / "out").rglob("*.tmp"))

    predict_files(predictor, [pictures], tmp_path / "out", **arguments)
    assert contents(tmp_path / "out") == whole
    assert set(Counter(names_done(tmp_path / "out")).values()) == {1}

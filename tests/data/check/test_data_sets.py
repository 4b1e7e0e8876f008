"""Checking own data: each kind of problem is found, by its id, all in one go; good data is good."""

import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_util
from runs import TINY

from detectron2.data import MetadataCatalog

from resnest_d2.checkpoint import RECORD_KEY
from resnest_d2.data import check_coco, check_sets, sample_set
from resnest_d2.data.check import image_files
from resnest_d2.data.check.kinds import (
    KINDS,
    OF_CLASS_FOLDERS,
    OF_KEYPOINTS,
    OF_LABELS,
    REPAIRABLE,
    UNUSABLE,
    WARNINGS,
)
from resnest_d2.data.check.rle import check_counts, check_text
from resnest_d2.data.image_reader import read_image
from resnest_d2.engine import RunRequest, prepare, run
from resnest_d2.predict.predictor import Predictor
from resnest_d2_command import main

# planted one at a time, below
KINDS_OF_FILES = UNUSABLE | set(
    "changed-iscrowd encoding no-annotations same-set unreadable-image unusual-values".split()
)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=40, val_images=4
    )


def _read(path):
    with open(path) as f:
        return json.load(f)


def _write(path, content):
    path.write_text(json.dumps(content))
    return str(path)


class Planted:
    """A copy of the sample set into which problems are put, each into an entry of its own."""

    def __init__(self, shapes, folder):
        json_file, image_root = shapes["train"]
        self.content = _read(json_file)
        self.root = folder / "images"
        shutil.copytree(image_root, self.root)
        self.expected = []  # (kind, id)
        self._images = iter(self.content["images"][1:])

    def image(self, kind, **changes):
        """Change an image entry without annotations; return it and the path of its file."""
        image = next(self._images)
        path = self.root / image["file_name"]
        annotations = self.content["annotations"]  # its own would have problems too
        annotations[:] = [a for a in annotations if a["image_id"] != image["id"]]
        image.update(changes)
        self.expected.append((kind, image["id"]))
        return image, path

    def annotation(self, kind, **changes):
        """Append a changed copy of a good annotation of the first image."""
        base = copy.deepcopy(self.content["annotations"][0])
        assert base["image_id"] == 1
        base["id"] = 10_000 + len(self.content["annotations"])
        base.update(changes)
        self.content["annotations"].append(base)
        self.expected.append((kind, base["id"]))
        return base


def _plant(shapes, folder):
    planted = Planted(shapes, folder)
    content = planted.content
    # Images.
    planted.image("missing-image")[1].unlink()
    planted.image("empty-image")[1].write_bytes(b"")
    planted.image("not-an-image")[1].write_text("a text")
    _, path = planted.image("truncated-image")
    path.write_bytes(path.read_bytes()[:-500])
    jpeg, path = planted.image("truncated-image", file_name="cut.jpg")
    with Image.open(path) as image:
        image.save(planted.root / "cut.jpg", quality=95)
    cut = planted.root / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-300])
    planted.image("size-mismatch", width=65)
    turned, path = planted.image("size-mismatch", file_name="turned.jpg", width=64, height=32)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32)).save(planted.root / "turned.jpg", exif=exif)
    planted.image("bad-image-size", height=0)
    planted.image("bad-image-size", height="tall")
    planted.image("converted-number", height=64.0, width="64")
    planted.image("bad-file-name", file_name=None)
    planted.image("merged-image", file_name="./000001.png")
    planted.image("duplicate-file-name", file_name="./000001.png", width=65)
    planted.expected.append(("size-mismatch", planted.expected[-1][1]))
    misnamed, _ = planted.image("misnamed-image")
    misnamed["file_name"] = f"of a server\\{misnamed['file_name']}"
    doubled, _ = planted.image("duplicate-image-id")
    shutil.copy(planted.root / "000001.png", planted.root / "other.png")
    content["images"].append(doubled | {"file_name": "other.png"})
    planted.image("converted-id")[0]["id"] = "seven"
    planted.expected[-1] = ("converted-id", "seven")
    image, _ = planted.image("bad-image-id")
    image["id"] = None
    planted.expected[-1] = ("bad-image-id", f"images[{content['images'].index(image)}]")
    image, _ = planted.image("image-lacks-key")
    del image["width"]
    shutil.copy(os.path.join(shapes["val"][1], "000002.png"), planted.image("same-picture")[1])
    content["images"].append(7)
    planted.expected.append(("bad-image", f"images[{len(content['images']) - 1}]"))
    # Annotations.
    content["annotations"].append("text")
    planted.expected.append(("bad-annotation", f"annotations[{len(content['annotations']) - 1}]"))
    for key in ("image_id", "category_id"):
        del planted.annotation("annotation-lacks-key")[key]
    planted.annotation("renumbered-annotation").pop("id")
    planted.expected[-1] = (
        "renumbered-annotation",
        f"annotations[{len(content['annotations']) - 1}]",
    )
    for number in (-4, 1.5, 0, "text", content["annotations"][0]["id"]):
        planted.annotation("renumbered-annotation", id=number, area=7)
    content["annotations"].append(copy.deepcopy(content["annotations"][0]))
    planted.expected.append(("merged-annotation", content["annotations"][0]["id"]))
    planted.annotation("converted-reference", image_id="1")
    planted.annotation("converted-reference", category_id=1.0)
    planted.annotation("unknown-image", image_id=4242)
    planted.annotation("unknown-image", image_id=[1])
    planted.annotation("unknown-category", category_id=77)
    del planted.annotation("bad-box")["bbox"]
    for box in ([1, 2, 3], [1, 2, 3, "4"], [1, 2, float("nan"), 4], [], None, {"x": 1}):
        planted.annotation("bad-box", bbox=box)
    for box in ([5, 5, 0, 5], [5, 5, 5, -3]):
        planted.annotation("degenerate-box", bbox=box)
    for box in ([60, 5, 20, 5], [-9, 5, 20, 5], [5, -2.1, 5, 9], [5, 60, 5, 6.1]):
        planted.annotation("box-outside", bbox=box)
    for box in ([5, 200, 5, 5], [1e300, 5, 5, 5], [-9, 5, 9, 5]):
        planted.annotation("box-off-image", bbox=box)
    flat = [[5, 5, 5, 5, 9, 5, 9, 5]]
    planted.annotation("flat-object", bbox=[5, 5, 4, 0], segmentation=flat, area=0)
    for area in (-1, float("inf"), "large"):
        planted.annotation("bad-area", area=area)
    planted.annotation("missing-area", area=None)
    del planted.annotation("missing-area")["area"]
    del planted.annotation("missing-iscrowd")["iscrowd"]
    planted.annotation("missing-iscrowd", iscrowd=None)
    for crowd in ("0", False, 1.0):
        planted.annotation("converted-number", iscrowd=crowd)
    for crowd in (2, "crowd"):
        planted.annotation("bad-iscrowd", iscrowd=crowd)
    for mask in ([], [[1, 2]]):
        planted.annotation("maskless-crowd", iscrowd=1, segmentation=mask)
    planted.expected.append(("crowds", None))
    empty = {"size": [64, 64], "counts": [64 * 64]}
    for mask in (empty, {"size": [64, 64], "counts": "PP4"}, [[5, 5, 9, 5, 9, 5]]):
        planted.annotation("empty-mask", segmentation=mask)
    planted.annotation(
        "converted-number", segmentation={"size": [64.0, 64.0], "counts": [64.0, 64.0 * 63]}
    )
    planted.annotation("ignored-object", ignore=1)
    for empty in ([], None, {}):
        planted.annotation("missing-mask", segmentation=empty)
    planted.annotation("bad-segmentation", segmentation="mask")
    good = [1, 1, 9, 1, 9, 9]
    planted.annotation("flat-segmentation", segmentation=good)
    for polygons in ([[*good[:5], "9"]], [[*good[:5], float("nan")]], [None]):
        planted.annotation("bad-polygon", segmentation=polygons)
    for polygon in ([1, 1, 9, 1], []):
        planted.annotation("short-polygon", segmentation=[polygon])
    planted.annotation("odd-polygon", segmentation=[[*good, 4]])
    away = [80, 1, 90, 1, 90, 9]
    planted.annotation("polygon-off-image", segmentation=[away])
    for polygon in ([1, 1, 9, 1], [*good, 4], None, away):
        planted.annotation("stray-polygon", segmentation=[good, polygon])
    planted.annotation("polygon-outside", segmentation=[[1, 1, 90, 1, 9, 9]])
    planted.annotation("rle-size", segmentation={"size": [64, 63], "counts": [64 * 63]})
    planted.annotation("rle-size", segmentation={"counts": [64 * 64]})
    text = content["annotations"][0]["segmentation"]["counts"]
    for counts in ([64, 64], [-64, 64 * 65], [4096.5], None, "", "\x00é", text[:-1], text + "1"):
        planted.annotation("bad-rle", segmentation={"size": [64, 64], "counts": counts})
    points = [5, 5, 2] * 4
    planted.annotation("keypoints-length", keypoints=points[:9])
    planted.annotation("keypoints-length", keypoints=points[:11])
    planted.annotation("bad-keypoints", keypoints=[*points[:11], "2"])
    planted.annotation("keypoint-visibility", keypoints=[*points[:11], 3], num_keypoints=4)
    planted.annotation("num-keypoints", keypoints=points, num_keypoints=3)
    del planted.annotation("missing-keypoints")["keypoints"]
    # Categories.
    content["categories"] += [
        {"id": 9, "name": "rare"},  # after a gap, of no annotation
        {"id": 10, "name": "circle"},
        {"id": 2, "name": "another"},
        {"id": 3, "name": content["categories"][2]["name"]},
        {"id": None, "name": "nothing"},
        {"id": 11, "name": ""},
        {"id": 14, "name": 14},
        {"id": 12},
        {"id": 13, "name": "n", "keypoints": "abc"},
        None,
    ]
    planted.expected += [
        ("category-gap", 9),
        ("empty-class", 9),
        ("duplicate-category-name", 10),
        ("duplicate-category-id", 2),
        ("merged-category", 3),
        ("bad-category-id", f"categories[{len(content['categories']) - 6}]"),
        ("bad-category-name", 11),
        ("converted-name", 14),
        ("category-lacks-key", 12),
        ("bad-keypoint-names", 13),
        ("bad-category", f"categories[{len(content['categories']) - 1}]"),
    ]
    return planted


@pytest.fixture(scope="module")
def planted(shapes, tmp_path_factory):
    """The planted problems, the training pair and a validation pair of the same classes."""
    folder = tmp_path_factory.mktemp("planted")
    planted = _plant(shapes, folder)
    train = (_write(folder / "train.json", planted.content), str(planted.root))
    content = _read(shapes["val"][0])
    content["categories"] += [
        {"id": 9, "name": "rare"},
        {"id": 10, "name": "circle"},
        {"id": 13, "name": "n"},
        {"id": 14, "name": "14"},
    ]
    val = (_write(folder / "val.json", content), shapes["val"][1])
    return planted, train, val


def test_every_planted_problem_is_found_by_its_id(planted):
    planted, train, val = planted
    problems = check_sets([train], [val])
    found = {(problem.kind, problem.id) for problem in problems}
    assert [entry for entry in planted.expected if entry not in found] == []
    assert len({kind for kind, _ in planted.expected}) >= 25
    planted_kinds = {kind for kind, _ in planted.expected}
    assert set(KINDS) - OF_LABELS - OF_CLASS_FOLDERS - planted_kinds == KINDS_OF_FILES
    json.dumps([problem.as_dict() for problem in problems], allow_nan=False)


def test_nothing_is_found_where_nothing_was_planted(planted):
    planted, train, val = planted
    expected = {name for _, name in planted.expected}
    untouched = {image["id"] for image in planted.content["images"][21:40]}
    found = [p for p in check_sets([train], [val]) if p.file != val[0]]
    strays = [p for p in found if p.id not in expected]
    assert strays == []
    assert not [p for p in found if p.entry and p.entry[0] == "images" and p.id in untouched]


def test_real_data_has_no_errors(test_data, shapes, tmp_path):
    sets = [
        (test_data / "coco_train_mini/annotations" / name, test_data / "coco_train_mini/images")
        for name in ("instances_train2017.json", "instances_coco128.json")
    ]
    val = test_data / "coco_val_mini"
    sets += [(val / "annotations" / "instances_val2017.json", val / "images"), *shapes.values()]
    for pair in sets:
        assert {p.kind for p in check_coco(*pair)} <= WARNINGS, pair
    truth = test_data / "cocoeval_ref" / "instances_val2014_100.json"  # without its pictures
    errors = {p.kind for p in check_coco(truth, tmp_path)} - WARNINGS
    assert errors == {"missing-image"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"{", "not-json"),
        (b"\xff\xfe", "not-json"),
        (b"[" * 100_000, "not-json"),
        (b"", "not-json"),
        (b"[]", "not-an-object"),
        (b'{"images": []}', "missing-section"),
        (b'{"images": {}, "annotations": [], "categories": []}', "bad-section"),
        (b'{"images": [], "annotations": [], "categories": []}', "empty-section"),
        (b'{"images": [1], "annotations": [], "categories": [2]}', "empty-section"),
    ],
)
def test_a_file_that_is_unusable_as_a_whole_is_told(text, kind, tmp_path):
    file = tmp_path / "own.json"
    file.write_bytes(text)
    assert kind in {problem.kind for problem in check_coco(file, tmp_path)}


def test_a_png_with_broken_bytes_in_its_middle_is_unreadable(shapes, tmp_path):
    shutil.copytree(shapes["val"][1], tmp_path / "images")
    picture = tmp_path / "images" / "000001.png"
    raw = bytearray(picture.read_bytes())
    raw[len(raw) // 2] ^= 255
    picture.write_bytes(raw)
    problems = check_coco(shapes["val"][0], tmp_path / "images")
    assert [(p.kind, p.id) for p in problems if p.severity == "error"] == [("unreadable-image", 1)]
    shutil.copy(os.path.join(shapes["val"][1], "000001.png"), picture)  # mended: it is looked at
    assert {p.kind for p in check_coco(shapes["val"][0], tmp_path / "images")} <= WARNINGS


def test_an_image_that_may_not_be_opened_is_unreadable(shapes, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(image_files, "open", refuse, raising=False)
    shutil.copystat(shapes["val"][0], os.path.join(shapes["val"][1], "000001.png"))  # not cached
    problems = [p for p in check_coco(*shapes["val"]) if p.severity == "error"]
    assert [(p.kind, p.id) for p in problems] == [("unreadable-image", 1)]


def test_a_turned_jpeg_has_the_size_that_detectron2_reads(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (64, 32))
    picture.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"more")  # after the end
    images = [
        {"id": i, "file_name": f"{name}.jpg", "width": 32, "height": 64}
        for i, name in enumerate("ab")
    ]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    file = _write(tmp_path / "own.json", content)
    assert {problem.kind for problem in check_coco(file, tmp_path)} == {"empty-class"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_size_of_a_turned_picture_is_that_of_what_is_seen(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (64, 32)).save(tmp_path / f"a.{suffix}", exif=exif)
    seen = read_image(tmp_path / f"a.{suffix}").pixels.shape[:2]
    assert seen == ((64, 32) if orientation > 4 else (32, 64))
    category = {"id": 1, "name": "a"}
    for height, width in (seen, seen[::-1]):
        image = {"id": 1, "file_name": f"a.{suffix}", "height": height, "width": width}
        content = {"images": [image], "annotations": [], "categories": [category]}
        kinds = {p.kind for p in check_coco(_write(tmp_path / "own.json", content), tmp_path)}
        assert ("size-mismatch" in kinds) == ((height, width) != seen)


def test_rle_texts_are_judged_as_pycocotools_writes_them():
    rng = np.random.default_rng(0)
    masks = [rng.random((h, w)) < p for h, w, p in [(9, 7, 0.5), (200, 300, 0.01), (5, 5, 0)]]
    masks += [np.ones((31, 17), bool), np.zeros((1, 1), bool)]
    for mask in list(masks):  # long runs: digits with signs
        masks.append(np.kron(mask[:40, :40], np.ones((11, 13))).astype(bool))
    texts = [
        mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
        for mask in masks
    ]
    pixels = [mask.size for mask in masks]
    assert not any(map(check_text, texts, pixels))
    assert all(map(check_text, texts, [number + 1 for number in pixels]))
    mixed = map(check_text, ["", texts[0], "~", "PPPPPPPPP0", "o", "8"], [1, pixels[0], 1, 1, 1, 1])
    assert [message is None for message in mixed] == [False, True, False, False, False, False]
    assert "negative" in check_text("322M", 6)


def test_runs_that_32_bits_cannot_count_are_no_rle():
    assert check_counts([0, 2**32 - 1], 2**32 - 1) is None
    assert "more than an RLE can have" in check_counts([0, 2**32], 2**32)
    assert "more than an RLE can have" in check_counts([2**31, 2**31], 2**32)


def test_the_same_picture_in_both_sets_is_found_under_any_name(shapes, tmp_path):
    json_file, image_root = shapes["val"]
    shutil.copytree(image_root, tmp_path / "images")
    content = _read(json_file)
    for image in content["images"]:
        image["file_name"] = f"renamed_{image['file_name']}"
        image["id"] += 100
        os.rename(
            tmp_path / "images" / image["file_name"][8:], tmp_path / "images" / image["file_name"]
        )
    content["annotations"] = []
    other = (_write(tmp_path / "other.json", content), tmp_path / "images")
    problems = [p for p in check_sets([other], [shapes["val"]]) if p.kind == "same-picture"]
    assert [p.id for p in problems] == [101, 102, 103, 104]
    assert problems[0].value == os.path.join(image_root, "000001.png")
    same = check_sets([shapes["val"]], [shapes["val"]])  # learned by heart on purpose
    assert "same-set" in {p.kind for p in same} <= WARNINGS


def test_other_classes_in_the_validation_file_are_a_problem_of_each_class(shapes, tmp_path):
    content = _read(shapes["val"][0])
    content["categories"][1]["name"] = "disc"
    val = (_write(tmp_path / "val.json", content), shapes["val"][1])
    problems = [p for p in check_sets([shapes["train"]], [val]) if p.severity == "error"]
    assert [(p.kind, p.id, p.file) for p in problems] == [("different-category", 2, val[0])]


# ---- Runs ----


def _request(folder, train, val, *opts, **kwargs):
    opts = (*TINY, "OUTPUT_DIR", str(folder), *opts)
    train, val = (() if pair is None else (pair,) for pair in (train, val))
    return RunRequest("sample_mask_rcnn_resnest14_fpn", opts, train=train, val=val, **kwargs)


def test_bad_data_is_refused_with_counts_examples_and_the_command(planted, tmp_path):
    _, train, val = planted
    with pytest.raises(ValueError) as error:
        prepare(_request(tmp_path / "run", train, val))
    message = str(error.value)
    assert f"resnest-d2 data check {train[0]} {train[1]} {val[0]} {val[1]}" in message
    assert "7 bad-box" in message and "--on-bad-data skip" in message
    assert f"{train[0]}, annotation 10" in message
    assert not (tmp_path / "run").exists()


def test_skip_trains_and_evaluates_on_the_rest(planted, tmp_path):
    found, train, val = planted
    folder = tmp_path / "run"
    request = _request(folder, train, val, on_bad_data="skip")
    results = run(request)
    assert set(results) == {"bbox", "segm"}
    listed = json.loads((folder / "bad_data.json").read_text())["problems"]
    ignored = WARNINGS | REPAIRABLE | OF_KEYPOINTS  # there is no keypoint head
    expected = {e for e in found.expected if e[0] not in ignored}
    assert {(p["kind"], p["id"]) for p in listed} == expected
    assert f"{len(listed)} problems of the data are left out" in (folder / "log.txt").read_text()

    (cleaned,) = (folder / "data").glob("clean_train_*.json")
    assert {p.kind for p in check_sets([(cleaned, train[1])], [val])} <= WARNINGS | {
        "missing-keypoints"
    }
    content = json.loads(cleaned.read_text())
    assert len(content["images"]) == 40 - 16  # the doubled id, the same picture, the merged row
    before = cleaned.stat().st_mtime_ns
    again = prepare(_request(folder, train, val, on_bad_data="skip", resume=True)).cfg
    assert cleaned.stat().st_mtime_ns == before
    assert MetadataCatalog.get(again.DATASETS.TRAIN[0]).json_file == str(cleaned)


def test_evaluation_works_on_the_rest_of_a_broken_validation_set(planted, shapes, tmp_path):
    _, train, _ = planted
    run(_request(tmp_path, shapes["train"], None))
    weights = ("MODEL.WEIGHTS", str(tmp_path / "model_final.pth"))
    content = _read(train[0])
    content["categories"] = content["categories"][:5]
    val = (_write(tmp_path / "val.json", content), train[1])
    request = _request(tmp_path, None, val, *weights, eval_only=True, on_bad_data="skip")
    assert set(run(request)) == {"bbox", "segm"}
    assert (tmp_path / "inference" / "bad_data.json").is_file()
    assert not (tmp_path / "bad_data.json").exists()


def test_skip_cannot_mend_other_classes(shapes, tmp_path):
    content = _read(shapes["val"][0])
    content["categories"].pop()
    content["annotations"] = []
    val = (_write(tmp_path / "val.json", content), shapes["val"][1])
    with pytest.raises(ValueError, match="(?s)must be mended in any case.*'ring' in .*, none in"):
        prepare(_request(tmp_path / "run", shapes["train"], val, on_bad_data="skip"))


def test_another_runs_files_are_not_written_over(planted, tmp_path):
    _, train, val = planted
    (tmp_path / "model_final.pth").touch()
    with pytest.raises(FileExistsError):
        prepare(_request(tmp_path, train, val, on_bad_data="skip"))
    assert [path.name for path in tmp_path.iterdir()] == ["model_final.pth"]


def test_area_and_iscrowd_are_filled_in_for_the_metrics(shapes, tmp_path):
    content = _read(shapes["val"][0])
    for annotation in content["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    val = (_write(tmp_path / "val.json", content), shapes["val"][1])
    cfg = prepare(_request(tmp_path / "run", shapes["train"], val)).cfg
    with open(MetadataCatalog.get(cfg.DATASETS.TEST[0]).json_file) as f:
        filled = json.load(f)["annotations"]
    area = mask_util.area(filled[0]["segmentation"])
    assert (filled[0]["area"], filled[0]["iscrowd"]) == (area, 0)


@pytest.mark.parametrize("count", [1, 10])
def test_classes_with_gaps_in_their_ids_keep_their_names(test_data, tmp_path, count):
    coco = test_data / "coco_train_mini"
    content = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    content["categories"] = content["categories"][3::8][:count][::-1]
    new = {category["id"]: 7 + 3 * category["id"] for category in content["categories"]}
    for category in content["categories"]:
        category["id"] = new[category["id"]]
    content["annotations"] = [
        a | {"category_id": new[a["category_id"]]}
        for a in content["annotations"]
        if a["category_id"] in new
    ]
    shown = sorted({a["image_id"] for a in content["annotations"]})[:4]
    content["images"] = [image for image in content["images"] if image["id"] in shown]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in shown]
    pair = (_write(tmp_path / "own.json", content), str(coco / "images"))
    run(_request(tmp_path / "run", pair, pair))
    names = [c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])]
    checkpoint = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    assert checkpoint[RECORD_KEY]["class_names"] == names
    assert len(names) == count
    assert list(Predictor(tmp_path / "run", device="cpu").class_names) == names


def test_sets_that_a_run_could_not_use_are_refused_before_it_starts(shapes, tmp_path):
    train, val = (_read(shapes[part][0]) for part in ("train", "val"))
    for annotation in val["annotations"]:
        del annotation["segmentation"]
    boxes = (_write(tmp_path / "boxes.json", val), shapes["val"][1])
    with pytest.raises(ValueError, match="boxes.json has no 'segmentation'.*MASK_ON"):
        prepare(_request(tmp_path / "run", shapes["train"], boxes))
    for annotation in train["annotations"]:
        annotation["category_id"] = 99
    nothing = (_write(tmp_path / "nothing.json", train), shapes["train"][1])
    with pytest.raises(ValueError, match="no annotation to train on"):
        prepare(_request(tmp_path / "run", nothing, shapes["val"], on_bad_data="skip"))


def test_paths_of_other_types_are_skipped_on_alike(planted, tmp_path):
    _, train, val = planted
    pair = tuple(map(Path, train))
    cfg = prepare(_request(tmp_path, pair, val, on_bad_data="skip")).cfg
    assert "clean_train" in MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).json_file


# ---- The command ----


def test_check_command_exits_with_1_on_errors_and_prints_them_as_json(planted, shapes, capsys):
    planted, train, val = planted
    assert main(["data", "check", *train, *val, "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    found = {(p["kind"], p["id"]) for p in problems}
    assert set(planted.expected) <= found
    assert set(problems[0]) == {"file", "id", "kind", "value", "severity"}
    assert main(["data", "check", *train, *val]) == 1
    out = capsys.readouterr().out
    assert KINDS["bad-rle"] in out and "--json" in out
    assert main(["data", "check", *shapes["train"]]) == 0
    assert "0 errors" in capsys.readouterr().out


def test_check_command_refuses_what_is_not_there(shapes, capsys, tmp_path):
    assert main(["data", "check", str(tmp_path / "no.json"), str(tmp_path)]) == 2
    assert "no.json does not exist" in capsys.readouterr().err
    assert main(["data", "check", *shapes["train"], shapes["val"][0]]) == 2
    assert "pairs" in capsys.readouterr().err

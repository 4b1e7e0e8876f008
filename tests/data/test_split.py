"""Splitting, counting and showing COCO files."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util

from resnest_d2.data import check_coco, check_sets, coco_stats, sample_set, split_coco
from resnest_d2.data.check.kinds import WARNINGS
from resnest_d2.draw.sheet import draw_sheet
from resnest_d2_command import main


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=30, val_images=2
    )


def _read(path):
    with open(path) as f:
        return json.load(f)


def test_parts_make_the_whole_and_share_no_picture(shapes, tmp_path):
    whole = _read(shapes["train"][0])
    split = split_coco(shapes["train"][0], tmp_path, val=0.3, seed=1)
    train, val = _read(split.train), _read(split.val)
    assert (split.train_images, split.val_images) == (21, 9)
    for section in ("images", "annotations"):
        ours = sorted(train[section] + val[section], key=lambda entry: entry["id"])
        assert ours == whole[section]
    for part in (train, val):
        assert part["categories"] == whole["categories"] and part["info"] == whole["info"]
        ids = {image["id"] for image in part["images"]}
        assert {a["image_id"] for a in part["annotations"]} <= ids
    root = shapes["train"][1]
    assert {p.kind for p in check_sets([(split.train, root)], [(split.val, root)])} <= WARNINGS


def test_seed_decides_the_split(shapes, tmp_path):
    first, again, other = (
        _read(split_coco(shapes["train"][0], tmp_path / name, seed=seed).val)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other
    command = ["data", "split", shapes["train"][0], "--out", str(tmp_path / "d"), "--seed", "1"]
    assert main(command) == 0 and _read(tmp_path / "d" / "val.json") == other


def test_every_class_of_two_pictures_is_in_both_parts(test_data, tmp_path):
    json_file = test_data / "coco_train_mini" / "annotations" / "instances_train2017.json"
    whole = coco_stats(json_file)
    split = split_coco(json_file, tmp_path)
    assert split.val_images == round(0.2 * whole.images)
    parts = [{c.id: c.images for c in coco_stats(p).classes} for p in (split.train, split.val)]
    alone = [c.name for c in whole.classes if c.images == 1]
    for c in whole.classes:
        assert all(part[c.id] for part in parts) or c.images < 2
    assert list(split.one_sided) == alone


def test_equal_pictures_stay_together(shapes, tmp_path):
    content = _read(shapes["train"][0])
    root = tmp_path / "images"
    shutil.copytree(shapes["train"][1], root)
    for image in content["images"][:20]:  # ten pictures, twice each
        if image["id"] % 2 == 0:
            shutil.copy(root / f"{image['id'] - 1:06d}.png", root / image["file_name"])
    own = tmp_path / "own.json"
    own.write_text(json.dumps(content))
    for seed in range(3):
        split = split_coco(own, tmp_path / str(seed), val=0.5, seed=seed, image_root=root)
        found = check_sets([(split.train, root)], [(split.val, root)])
        assert "same-picture" not in {problem.kind for problem in found}
        assert split.val_images == 15


def test_entries_of_one_file_stay_together_without_the_images(shapes, tmp_path):
    content = _read(shapes["train"][0])
    for image in content["images"][:20]:  # ten files, twice each, in two spellings
        if image["id"] % 2 == 0:
            image["file_name"] = f"./{image['id'] - 1:06d}.png"
    own = tmp_path / "own.json"
    own.write_text(json.dumps(content))
    for seed in range(3):
        split = split_coco(own, tmp_path / str(seed), val=0.5, seed=seed)
        sides = [
            {os.path.normpath(image["file_name"]) for image in _read(file)["images"]}
            for file in (split.train, split.val)
        ]
        assert len(sides[0]) + len(sides[1]) == 20 and not sides[0] & sides[1]


def test_bad_requests_are_refused_and_nothing_is_written_over(shapes, tmp_path, capsys):
    split = ["data", "split", shapes["train"][0], "--out", str(tmp_path / "out")]
    for share in ("0", "1", "-0.1", "nan"):
        assert main([*split, "--val", share]) == 2
        assert "above 0 and below 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(split) == 0
    before = (tmp_path / "out" / "train.json").read_bytes()
    (tmp_path / "out" / "val.json").unlink()
    assert main([*split, "--seed", "5"]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert (tmp_path / "out" / "train.json").read_bytes() == before
    assert not (tmp_path / "out" / "val.json").exists()
    content = _read(shapes["train"][0])
    content["annotations"][0]["image_id"] = 999
    (tmp_path / "own.json").write_text(json.dumps(content))
    assert main(["data", "split", str(tmp_path / "own.json"), "--out", str(tmp_path / "b")]) == 2
    assert "unknown-image: 999" in capsys.readouterr().err


@pytest.fixture
def own_split(tmp_path):
    """``own_split(classes, val)`` splits a file of images that each hold one object of a class."""

    def split(classes: list[str | None], val: float):
        names = sorted({name for name in classes if name} or {"none"})
        content = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "height": 8, "width": 8}
                for i, _ in enumerate(classes, 1)
            ],
            "annotations": [
                {
                    "id": i,
                    "image_id": i,
                    "category_id": names.index(name) + 1,
                    "bbox": [1, 1, 4, 4],
                    "area": 16,
                    "iscrowd": 0,
                }
                for i, name in enumerate(classes, 1)
                if name
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        }
        (tmp_path / "own.json").write_text(json.dumps(content))
        return split_coco(tmp_path / "own.json", tmp_path / "parts", val=val)

    return split


def test_classes_of_the_training_part_alone_and_of_the_other_are_both_named(own_split):
    assert own_split(["a", "b"], 0.5).one_sided == ("a", "b")


def test_however_large_the_share_an_image_is_left_to_train_on(own_split):
    split = own_split([None] * 3, 0.99)
    assert (split.train_images, split.val_images) == (1, 2)


def test_rare_classes_come_first(own_split):
    split = own_split(["common"] * 8 + ["rare"] * 2, 0.1)
    assert split.val_images == 1 and split.one_sided == ("common",)


def test_two_pictures_are_split_into_one_and_one(shapes, tmp_path):
    split = split_coco(shapes["val"][0], tmp_path, val=0.01)
    assert (split.train_images, split.val_images) == (1, 1)


def test_stats_count_what_the_file_holds(shapes, capsys):
    content = _read(shapes["train"][0])
    assert main(["data", "stats", shapes["train"][0], "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert (stats["images"], stats["annotations"]) == (30, len(content["annotations"]))
    assert sum(c["objects"] for c in stats["classes"]) == stats["annotations"]
    assert all(c["small"] + c["medium"] + c["large"] == c["objects"] for c in stats["classes"])
    assert sum(stats["objects_per_image"].values()) == 30
    stars = [a["image_id"] for a in content["annotations"] if a["category_id"] == 4]
    assert (stats["classes"][3]["objects"], stats["classes"][3]["images"]) == (
        len(stars),
        len(set(stars)),
    )
    assert stats["image_sizes"] == {"width": [64, 64, 64], "height": [64, 64, 64]}
    assert main(["data", "stats", shapes["train"][0]]) == 0
    assert "star" in capsys.readouterr().out
    assert main(["data", "stats", "nowhere.json"]) == 2


def test_stats_bear_broken_values_and_empty_files(shapes, tmp_path, capsys):
    content = _read(shapes["train"][0])
    content["annotations"] = content["annotations"][:4]
    content["annotations"][0]["bbox"] = [1, "x", None, float("nan")]
    content["annotations"][1].update(area=None, bbox=[0, 0, 0, 0])
    del content["annotations"][2]["area"], content["annotations"][3]["bbox"]
    own = tmp_path / "own.json"
    own.write_text(json.dumps(content))
    assert main(["data", "stats", str(own)]) == 0
    own.write_text(json.dumps(content | {"annotations": []}))
    assert main(["data", "stats", str(own)]) == 0
    assert coco_stats(own).empty_images == 30


def test_a_sheet_shows_pictures_with_their_annotations(shapes, tmp_path, capsys):
    json_file, root = shapes["train"]
    sheet = draw_sheet(shapes["train"], num_images=5, seed=1)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    np.testing.assert_array_equal(sheet, draw_sheet(shapes["train"], num_images=5, seed=1))
    content = _read(json_file) | {"annotations": []}
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(content))
    plain = draw_sheet((str(bare), root), num_images=5, seed=1)
    assert plain.shape != sheet.shape or (plain != sheet).any()

    out = tmp_path / "deep" / "sheet.png"
    show = ["data", "show", json_file, root, "--out"]
    assert main([*show, str(out), "--num", "4"]) == 0
    with Image.open(out) as picture:
        assert picture.format == "PNG" and min(picture.size) > 800
    assert main([*show, str(tmp_path / "sheet.gif")]) == 2
    assert main([*show, str(out), "--num", "0"]) == 2


def test_a_sheet_has_room_for_a_picture_that_cannot_be_read(shapes, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(shapes["val"][1], root)
    (root / "000001.png").write_bytes(b"no picture")
    assert "not-an-image" in {p.kind for p in check_coco(shapes["val"][0], root)}
    sheet = draw_sheet((shapes["val"][0], os.fspath(root)))
    assert (sheet == np.array([0xCC, 0xCC, 0xCC])).all(axis=2).sum() > 10_000


@pytest.mark.parametrize("name", [5, ["a.png"], " "])
def test_a_file_name_that_is_no_text_is_refused_with_its_image(name, shapes, tmp_path):
    content = _read(shapes["train"][0])
    content["images"][0]["file_name"] = name
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"bad\.json, image 1: bad-file-name"):
        split_coco(bad, tmp_path / "parts", image_root=shapes["train"][1])


@pytest.mark.parametrize("rle", [True, False])
def test_a_large_image_is_reduced_with_its_annotations(rle, tmp_path):
    Image.new("RGB", (3400, 1700)).save(tmp_path / "a.png")
    mask = np.zeros((1700, 3400), np.uint8, order="F")
    mask[850:, 1700:] = 1
    encoded = mask_util.encode(mask)
    polygon = [[1700, 850, 3400, 850, 3400, 1700, 1700, 1700]]
    encoded["counts"] = encoded["counts"].decode()
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1}
    annotation |= {"bbox": [1700, 850, 1700, 850], "segmentation": encoded if rle else polygon}
    annotation |= {"keypoints": [425, 425, 2], "num_keypoints": 1}
    image = {"id": 1, "file_name": "a.png", "width": 3400, "height": 1700}
    category = {"id": 1, "name": " a", "keypoints": ["nose"]}
    content = {"images": [image], "annotations": [annotation], "categories": [category]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    drawn = draw_sheet((str(tmp_path / "a.json"), str(tmp_path)))[8:218, 8:428]  # 420 x 210
    assert drawn[125:200, 300:400].any(axis=2).all()  # the mask
    assert drawn[52, 52].any()  # the keypoint
    assert not drawn[150:200, 10:200].any() and not drawn[10:80, 230:400].any()


def test_an_image_of_another_size_than_its_data_says_is_not_drawn(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    rle = {"size": [60_000, 60_000], "counts": [0, 3_600_000_000]}  # 3.4 GiB
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1}
    annotation |= {"bbox": [0, 0, 9, 9], "segmentation": rle}
    image = {"id": 1, "file_name": "a.png", "width": 60_000, "height": 60_000}
    category = {"id": 1, "name": "a"}
    content = {"images": [image], "annotations": [annotation], "categories": [category]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    sheet = draw_sheet((str(tmp_path / "a.json"), str(tmp_path)))
    assert (sheet == 0xCC).all(axis=2).sum() > 10_000

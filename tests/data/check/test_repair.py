"""Broken data: kept where that can be, repaired before it is left out, and counted in objects."""

import dataclasses
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog

from resnest_d2.data import check_coco, fix_coco, register_coco, split_coco
from resnest_d2.data.check import structure
from resnest_d2.data.check.data_sets import check_data_sets, examine
from resnest_d2.data.check.file_names import find_files
from resnest_d2.data.check.normalise import GIVEN_ID
from resnest_d2.data.check.objects import TOLERANCE
from resnest_d2.data.check.repair import make_usable, write_usable
from resnest_d2_command import main

WIDTH, HEIGHT = 48, 32  # of all images here
SQUARE = [[10, 10, 30, 10, 30, 20, 10, 20]]


def _object(**changes):
    base = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 10], "area": 200, "iscrowd": 0}
    return base | {"segmentation": SQUARE} | changes


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write a file of annotations (of the first of two images) and its images."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "images"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)

    def make(annotations, *, names=("a.png", "b.png"), categories=({"id": 1, "name": "cat"},)):
        content = {
            "images": [
                {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
                for i, name in enumerate(names, start=1)
            ],
            "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
            "categories": list(categories),
        }
        (tmp_path / "own.json").write_text(json.dumps(content))
        return str(tmp_path / "own.json"), str(root)

    return make


def _kinds(pair):
    return {problem.kind: problem.severity for problem in check_coco(*pair)}


def _copy(name):
    with open(MetadataCatalog.get(name).json_file) as file:
        return json.load(file)["annotations"]


@pytest.mark.parametrize("side", ["left", "top", "right", "bottom"])
@pytest.mark.parametrize("pixels", [1.9, 2.1])
def test_a_box_that_leaves_the_image_is_clipped_beyond_the_tolerance_on_each_side(
    make, side, pixels
):
    assert 1.9 < TOLERANCE < 2.1
    low = {"left": [-pixels, 10], "top": [10, -pixels]}
    high = {"right": [WIDTH + pixels - 8, 10], "bottom": [10, HEIGHT + pixels - 8]}
    box = [*(low | high)[side], 8, 8]
    pair = make([_object(bbox=box)])
    (clipped,) = _copy(register_coco(*pair))
    if pixels < TOLERANCE:
        assert _kinds(pair) == {} and clipped["bbox"] == box
    else:
        assert _kinds(pair) == {"box-outside": "warning"}
        x, y, width, height = clipped["bbox"]
        assert (width, height) == pytest.approx((8, 5.9) if side in ("top", "bottom") else (5.9, 8))
        assert x >= 0 and y >= 0 and x + width <= WIDTH and y + height <= HEIGHT


def test_the_area_follows_a_clipped_box_where_it_was_that_boxs(make):
    pair = make([_object(bbox=[-9, 10, 20, 10], area=area) for area in (200, 150)])
    assert [a["area"] for a in _copy(register_coco(*pair))] == [110, 150]


def test_a_missing_area_is_that_of_all_polygons(make):
    wide = [30, 10, 46, 10, 46, 20, 30, 20]  # right of the 32 pixels of the height
    (found,) = _copy(
        register_coco(*make([_object(segmentation=[wide, [2, 2, 8, 2, 8, 12, 2, 12]], area=None)]))
    )
    assert found["area"] == pytest.approx(160 + 60, rel=0.05)


def test_stray_polygons_go_before_the_others_are_clipped(make):
    outside = [30, 10, 70, 10, 70, 25, 30, 25]
    (found,) = _copy(register_coco(*make([_object(segmentation=[outside, [1, 1, 2, 2]])])))
    (polygon,) = found["segmentation"]
    assert len(polygon) >= 8 and max(polygon[::2]) == WIDTH


def test_clipped_objects_train_as_stock_detectron2_trains_them(make):
    outside = [[-8.0, -7, 60, 31], [30, 10, 40, 15], [-3, 20, 20, 30]]
    polygons = [[-8, -7, 52, -7, 52, 24, -8, 24], [30, 10, 70, 10, 70, 25, 30, 25]]
    polygons.append([-3, 20, 17, 20, 17, 50, -3, 50])
    annotations = [
        _object(bbox=b, segmentation=[p]) for b, p in zip(outside, polygons, strict=True)
    ]
    pair = make(annotations)
    assert _kinds(pair) == {"box-outside": "warning", "polygon-outside": "warning"}
    cfg = get_cfg()
    cfg.INPUT.MASK_FORMAT, cfg.MODEL.MASK_ON, cfg.INPUT.RANDOM_FLIP = "bitmask", True, "none"
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT,)
    from detectron2.data.datasets import load_coco_json

    stock, ours = (
        DatasetMapper(cfg, is_train=True)(records[0])["instances"]
        for records in (load_coco_json(*pair), DatasetCatalog.get(register_coco(*pair)))
    )
    assert len(ours) == 3
    torch.testing.assert_close(ours.gt_boxes.tensor, stock.gt_boxes.tensor)
    assert torch.equal(ours.gt_masks.tensor, stock.gt_masks.tensor)


def test_a_stray_polygon_costs_itself_and_not_the_object(make):
    strays = [[1, 1, 2, 2], [], [1, 1, 9, 1, 9, 9, 4], None, [1, 1, 9, 1, 9, float("nan")]]
    pair = make([_object(segmentation=[*SQUARE, stray]) for stray in strays])
    assert _kinds(pair) == {"stray-polygon": "warning"}
    assert [a["segmentation"] for a in _copy(register_coco(*pair))] == [SQUARE] * len(strays)


UNREADABLE = ([[1, 2, 3, 4]], [[]], "text", [None], {"size": [5, 5], "counts": [25]})


@pytest.mark.parametrize("segmentation", UNREADABLE)
def test_without_masks_an_unreadable_segmentation_costs_no_object(make, segmentation):
    pair = make([_object(segmentation=segmentation), _object()])
    with pytest.raises(ValueError, match=r"has 1 problem \("):
        register_coco(*pair)
    name = register_coco(*pair, masks=False)
    assert len(DatasetCatalog.get(name)[0]["annotations"]) == 2
    name = register_coco(*pair, on_bad_data="skip")
    assert len(DatasetCatalog.get(name)[0]["annotations"]) == 1


def test_a_flat_list_of_numbers_is_one_polygon(make):
    pair = make([_object(segmentation=SQUARE[0])])
    assert _kinds(pair) == {"flat-segmentation": "warning"}
    assert _copy(register_coco(*pair))[0]["segmentation"] == SQUARE


@pytest.mark.parametrize(
    ("changes", "kind", "repaired"),
    [
        ({"bbox": [10, 10, 0, 0]}, "degenerate-box", {"bbox": [10, 10, 20, 10]}),
        ({"bbox": [30, 20, -20, -10]}, "degenerate-box", {"bbox": [10, 10, 20, 10]}),
        ({"bbox": None}, "bad-box", {"bbox": [10, 10, 20, 10]}),
        ({"ignore": 1}, "ignored-object", {"iscrowd": 1}),
        ({"bbox": [0, 0, 0, 0], "segmentation": []}, "degenerate-box", None),
        ({"bbox": [60, 10, 20, 10]}, "box-off-image", None),
        ({"image_id": 77}, "unknown-image", None),
    ],
)
def test_refuse_repair_and_skip_do_what_their_names_say(make, changes, kind, repaired):
    pair = make([_object(), _object(**changes)])
    assert _kinds(pair)[kind] == "error"
    with pytest.raises(ValueError, match=kind):
        register_coco(*pair)
    if repaired is None:
        with pytest.raises(ValueError, match=kind):
            register_coco(*pair, on_bad_data="repair")
    else:
        annotation = _copy(register_coco(*pair, on_bad_data="repair"))[1]
        assert {key: annotation[key] for key in repaired} == repaired
    kept = _copy(register_coco(*pair, on_bad_data="skip"))
    assert len(kept) == (1 if repaired is None else 2)


def test_objects_without_keypoints_count_as_not_labelled_after_repair(make, tmp_path):
    person = {"id": 1, "name": "person", "keypoints": ["a", "b"]}
    pair = make([_object(keypoints=[1, 1, 2, 3, 3, 2]), _object()], categories=[person])
    fix_coco(pair[0], tmp_path / "fixed.json")
    fixed = json.loads((tmp_path / "fixed.json").read_text())["annotations"]
    assert (fixed[1]["keypoints"], fixed[1]["num_keypoints"]) == ([0] * 6, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"keypoints": [1, 1, 3, 2, 2, 2]},
        {"keypoints": [1, 1, 2]},
        {"keypoints": ["1", 1, 2, 3, 3, 2]},
        {"keypoints": None},
    ],
)
def test_without_a_keypoint_head_bad_keypoints_cost_no_object(make, changes):
    person = {"id": 1, "name": "person", "keypoints": ["a", "b"]}
    pair = make([_object(keypoints=[1, 1, 2, 3, 3, 2]), _object(**changes)], categories=[person])
    assert "error" in _kinds(pair).values()
    usable = make_usable(check_data_sets([pair])[pair], keypoints=False)
    assert not usable.refused and usable.lost == 0


def test_keypoints_that_cannot_be_read_are_taken_out_with_their_number(make):
    person = {"id": 1, "name": "person", "keypoints": ["a", "b"]}
    bad = _object(keypoints=["1", 1, 2, 3, 3, 2], num_keypoints=2)
    pair = make([_object(keypoints=[1, 1, 2, 3, 3, 2]), bad], categories=[person])
    usable = make_usable(check_data_sets([pair])[pair], keypoints=False)
    assert not usable.content["annotations"][1].keys() & {"keypoints", "num_keypoints"}


@pytest.mark.parametrize(
    ("kwargs", "reference"),
    [
        ({"names": ("a.png", "missing.png")}, {"image_id": 2}),
        ({"categories": [{"id": 1, "name": "cat"}, {"id": 2}]}, {"category_id": 2}),
    ],
)
def test_what_refers_to_a_broken_entry_is_left_out_with_it(make, kwargs, reference):
    pair = make([_object(), _object(**reference)], **kwargs)
    usable = make_usable(check_data_sets([pair])[pair], on_bad_data="skip")
    assert (usable.objects, usable.lost) == (2, 1)
    assert [a["id"] for a in usable.content["annotations"]] == [1]


def test_crowds_need_no_mask_and_are_left_out_where_masks_are_learned(make):
    crowds = [_object(iscrowd=1, segmentation=mask) for mask in ([], [[1, 2]], None)]
    pair = make([_object(), *crowds])
    assert _kinds(pair) == {"maskless-crowd": "warning", "crowds": "warning"}
    usable = make_usable(check_data_sets([pair])[pair])
    assert (usable.objects, usable.lost, len(usable.content["annotations"])) == (1, 0, 1)
    assert len(_copy(register_coco(*pair))) == 1
    assert len(_copy(register_coco(*pair, masks=False))) == 4


def test_the_summary_of_what_is_used_is_that_of_the_written_file(make, tmp_path):
    person = {"id": 1, "name": "person", "keypoints": ["a", "b"]}
    rle = {"size": [HEIGHT, WIDTH], "counts": [10, 20, HEIGHT * WIDTH - 30]}
    annotations = [_object(segmentation=rle, iscrowd=1), _object(bbox=None), _object(image_id=9)]
    pair = make(annotations, categories=[person, {"id": "x", "name": "cat"}])
    checked = check_data_sets([pair])[pair]
    usable = make_usable(checked, on_bad_data="skip", keypoints=False)
    written = examine(write_usable(usable, tmp_path / "written"))
    assert dataclasses.replace(written.summary, json_file=pair[0]) == usable.summary
    assert (usable.summary.num_annotations, usable.summary.num_crowds) == (2, 1)
    assert usable.summary.given_ids == (1, "x")


def test_a_file_that_is_repaired_is_read_once(make, monkeypatch):
    reads = []
    loads = structure.json.loads
    fake = SimpleNamespace(**vars(json) | {"loads": lambda text: reads.append(1) or loads(text)})
    monkeypatch.setattr(structure, "json", fake)
    pair = make([_object(bbox=None), _object(bbox=[-9, 10, 20, 10])])
    assert len(_copy(register_coco(*pair, on_bad_data="repair"))) == 2
    assert len(reads) == 1


def test_a_box_recipe_takes_a_box_from_the_good_polygon_too(make):
    stray = _object(bbox=None, segmentation=[[1, 1, 2, 2], *SQUARE])
    for masks in (True, False):
        name = register_coco(*make([stray]), on_bad_data="repair", masks=masks)
        assert _copy(name)[0]["bbox"] == [10, 10, 20, 10]


def test_split_repairs_names_says_what_it_leaves_out_and_gives_files_their_own_ids(
    make, tmp_path, caplog
):
    pair = make([_object(image_id="x"), _object(image_id="x", bbox=None, segmentation=[])])
    with open(pair[0]) as file:
        content = json.load(file)
    content["images"][0].update(id="x", file_name="old\\a.png")
    with open(pair[0], "w") as file:
        json.dump(content, file)
    with pytest.raises(FileNotFoundError):
        split_coco(pair[0], tmp_path / "parts", val=0.5, image_root=pair[1])
    kwargs = {"val": 0.5, "image_root": pair[1], "on_bad_data": "skip"}
    split = split_coco(pair[0], tmp_path / "parts", **kwargs)
    assert "1 of 2 annotations are left out" in caplog.text
    for path in (split.train, split.val):
        with open(path) as file:
            part = json.load(file)
        assert {type(image["id"]) for image in part["images"]} == {int}
        assert GIVEN_ID not in json.dumps(part)
        assert "\\" not in part["images"][0]["file_name"]


def test_fix_writes_a_sound_file_and_what_it_changed(make, tmp_path, capsys):
    annotations = [_object(bbox=[-9, 10, 20, 10]), _object(ignore=1), _object(iscrowd=1)]
    pair = make(annotations, names=("old\\a.png", "b.png"))
    out = tmp_path / "fixed.json"
    arguments = ["data", "fix", pair[0], str(out), "--images", pair[1]]
    assert main([*arguments, "--iscrowd", "0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "fixed.changes.json").read_text())
    kinds = sorted(problem["kind"] for problem in printed["mended"])
    expected = ["box-outside", "changed-iscrowd", "changed-iscrowd", "ignored-object"]
    assert kinds == [*expected, "misnamed-image"]
    assert (printed["objects"], printed["lost"]) == (3, 0)
    assert check_coco(out, pair[1]) == []
    assert main(arguments) == 2  # nothing is overwritten
    assert "fixed.json" in capsys.readouterr().err
    out.unlink()
    assert main(arguments) == 2 and not out.exists()
    assert "fixed.changes.json: there already" in capsys.readouterr().err


def test_fix_refuses_what_cannot_be_repaired_and_skips_it_when_told(make, tmp_path, capsys):
    pair = make([_object(), _object(category_id=9)])
    out = tmp_path / "fixed.json"
    assert main(["data", "fix", pair[0], str(out)]) == 2
    assert "unknown-category" in capsys.readouterr().err and not out.exists()
    assert main(["data", "fix", pair[0], str(out), "--on-bad-data", "skip"]) == 0
    assert "1 of 2 annotations" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["annotations"]) == 1


def test_check_exits_with_0_on_warnings_alone(make, capsys):
    assert main(["data", "check", *make([_object(area=None)])]) == 0
    assert "0 errors, 1 warning\n" in capsys.readouterr().out
    assert main(["data", "check", *make([_object(bbox=None)])]) == 1


# ---- File names ----


@pytest.fixture
def files(tmp_path):
    names = ("a.png", "sub/b.png", "x y.png", "q.png", "Pic.JPG", "one/z.png", "two/z.png")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("images\\a.png", "a.png"),
        ("C:\\Users\\me\\sub\\b.png", "sub/b.png"),
        ("b.png", "sub/b.png"),
        ("/home/me/a.png", "a.png"),
        ("../a.png", "a.png"),
        ("x%20y.png", "x y.png"),
        ("/data/local-files/?d=set/sub/b.png", "sub/b.png"),
        ("/data/upload/1/1a2b3c4d-q.png", "q.png"),
        ("pic.jpg", "Pic.JPG"),
        ("far/one/z.png", "one/z.png"),
        ("z.png", None),  # of two
        ("three/z.png", None),  # of none of the two
        ("three/b.png", None),  # another folder, not another level
        ("c.png", None),
        ("", None),
    ],
)
def test_a_file_is_found_where_one_reading_of_its_name_leads_to_one_file(files, name, file):
    found = find_files([name], str(files)).get(name)
    assert (found and found.file_name) == file


def test_no_file_is_found_twice_or_taken_from_another_entry(files):
    assert find_files(["x/a.png", "y\\a.png"], str(files)) == {}
    assert find_files(["x/a.png"], str(files), taken=["./a.png"]) == {}


def test_files_are_found_in_linear_time(monkeypatch, tmp_path):
    folders = [(str(tmp_path / str(i)), [], ["x.png"]) for i in range(20_000)]
    monkeypatch.setattr(os, "walk", lambda root: folders)
    assert find_files([f"q/{i}/y/x.png" for i in range(20_000)], str(tmp_path)) == {}
    marks = "\u0301" * 200_000 + "\u0327" * 200_000  # NFC sorts these in quadratic time
    assert find_files([f"a{marks}.png", "a/" * 200_000], str(tmp_path)) == {}


def test_names_of_missing_files_stay_on_the_line_of_the_message(make):
    with pytest.raises(FileNotFoundError) as info:
        register_coco(*make([_object()], names=("a\nforged.png", "b" * 100_000)))
    assert "a\\nforged.png" in str(info.value)
    assert "\n" not in str(info.value) and len(str(info.value)) < 2000


def test_an_image_without_a_file_name_is_a_problem_when_registered(make):
    with pytest.raises(ValueError, match="bad-file-name"):
        register_coco(*make([_object()], names=(None, "b.png")))


def test_a_misnamed_file_is_named_when_refused_and_taken_when_repaired(make):
    pair = make([_object()], names=("set\\a.png", "set\\b.png"))
    with pytest.raises(
        FileNotFoundError, match=r"2 of the 2.*2 of 2 missing .*: a\.png, b\.png\. .*repair"
    ):
        register_coco(*pair)
    records = DatasetCatalog.get(register_coco(*pair, on_bad_data="repair"))
    assert [os.path.basename(record["file_name"]) for record in records] == ["a.png", "b.png"]
    assert len(records[0]["annotations"]) == 1

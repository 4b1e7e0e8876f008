"""Panoptic data sets: masks that say what the pictures say, and refusals that say what is wrong."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from panoptic_set import read_ids, write_ids, write_panoptic_set
from PIL import Image

from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog

from resnest_d2.config import get_config
from resnest_d2.data import register_coco_panoptic, require_registered, write_stuff_masks


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return write_panoptic_set(tmp_path)


def _change(files, change) -> None:
    path = Path(files["panoptic_json"])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_masks_hold_contiguous_stuff_classes_zero_on_things_255_elsewhere(files):
    name = register_coco_panoptic(**files)
    metadata = MetadataCatalog.get(name)
    assert metadata.stuff_classes == ["things", "floor", "wall"]  # by category id
    assert metadata.stuff_dataset_id_to_contiguous_id == {0: 0, 9: 1, 17: 2}
    assert metadata.thing_classes == ["circle", "square", "triangle", "star", "ring"]
    annotations = json.loads(Path(files["panoptic_json"]).read_text())["annotations"]
    records = DatasetCatalog.get(name)
    assert len(records) == len(annotations) == 3
    for record, annotation in zip(records, annotations, strict=True):
        mask = np.array(Image.open(record["sem_seg_file_name"]))
        ids = read_ids(Path(files["panoptic_root"]) / annotation["file_name"])
        category = {s["id"]: s["category_id"] for s in annotation["segments_info"]}
        for y, x in np.ndindex(ids.shape):  # pixel by pixel, from the format's definition
            expected = {9: 1, 17: 2}.get(category[ids[y, x]], 0) if ids[y, x] else 255
            assert mask[y, x] == expected, (y, x)
        assert set(np.unique(mask)) == {0, 1, 2, 255}


@pytest.fixture(scope="module")
def coco_masks(test_data, tmp_path_factory):
    """The masks of real files, written once."""
    folder = test_data / "coco_panoptic_mini" / "annotations"
    masks = tmp_path_factory.mktemp("real") / "stuff"
    write_stuff_masks(folder / "panoptic_val2017.json", folder / "panoptic_val2017", masks)
    return masks


def test_masks_equal_the_semantic_pictures_of_coco_and_detectron2s_classes(test_data, coco_masks):
    folder = test_data / "coco_panoptic_mini" / "annotations"
    metadata = MetadataCatalog.get("coco_2017_val_panoptic_separated")
    classes = np.zeros(256, dtype=np.uint8)  # of COCO's category ids
    for category, number in metadata.stuff_dataset_id_to_contiguous_id.items():
        classes[category] = number
    classes[0] = 255
    for path in (folder / "semantic_val2017").iterdir():
        mask = np.array(Image.open(coco_masks / path.name))
        np.testing.assert_array_equal(mask, classes[np.array(Image.open(path))])


def test_real_files_get_detectron2s_class_numbers(test_data, coco_masks):
    folder = test_data / "coco_panoptic_mini"
    name = register_coco_panoptic(
        folder / "annotations" / "panoptic_val2017.json",
        folder / "annotations" / "panoptic_val2017",
        folder / "annotations" / "instances_from_panoptic_val2017.json",
        folder / "images" / "val2017",
        sem_seg_root=coco_masks,
    )
    ours, coco = map(MetadataCatalog.get, (name, "coco_2017_val_panoptic_separated"))
    assert len(ours.thing_classes) == 80 and len(ours.stuff_classes) == 54
    for key in ("stuff", "thing"):
        key = f"{key}_dataset_id_to_contiguous_id"
        assert ours.get(key) == coco.get(key)
    assert ours.thing_classes == coco.thing_classes


def test_detectron2s_mapper_reads_masks_and_instances(files):
    name = register_coco_panoptic(**files)
    options = ["INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.RANDOM_FLIP", "none"]
    mapper = DatasetMapper(get_config("sample_mask_rcnn_resnest14_fpn", options), is_train=True)
    record = DatasetCatalog.get(name)[0]
    mapped = mapper(record)
    np.testing.assert_array_equal(mapped["sem_seg"], Image.open(record["sem_seg_file_name"]))
    assert len(mapped["instances"]) > 0 and mapped["instances"].has("gt_masks")


def test_registering_twice_gives_one_name_and_masks_are_written_once(files):
    name = register_coco_panoptic(**files)
    root = MetadataCatalog.get(name).sem_seg_root
    before = {path: path.stat().st_mtime_ns for path in Path(root).iterdir()}
    assert register_coco_panoptic(**files) == name
    DatasetCatalog.remove(name)  # as in another process
    MetadataCatalog.remove(name)
    assert register_coco_panoptic(**files) == name
    assert {path: path.stat().st_mtime_ns for path in Path(root).iterdir()} == before
    assert os.listdir(Path(root).parent) == [Path(root).name]  # nothing temporary is left
    require_registered([name])


def test_a_changed_file_gets_new_masks(files):
    def masks():
        name = register_coco_panoptic(**files)
        root = MetadataCatalog.get(name).sem_seg_root
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        return np.array(Image.open(sorted(Path(root).iterdir())[0]))

    def swap(content):
        for segment in content["annotations"][0]["segments_info"]:
            segment["category_id"] = {9: 17, 17: 9}.get(segment["category_id"], 1)
        content["info"] = "changed"

    old = masks()
    _change(files, swap)
    new = masks()
    np.testing.assert_array_equal(new == 1, old == 2)


def test_an_incomplete_mask_folder_is_refused_and_left(files, tmp_path):
    root = tmp_path / "masks"
    register = {**files, "sem_seg_root": str(root), "name": "panoptic_test_incomplete"}
    root.mkdir()
    (root / "000001.png").touch()
    with pytest.raises(ValueError, match="lacks 2 of the 3 masks .*000002.png"):
        register_coco_panoptic(**register)
    assert os.listdir(root) == ["000001.png"]


def test_a_panoptic_picture_in_a_format_that_is_not_read_is_refused(files):
    path = Path(files["panoptic_root"]) / "000002.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n")
    with pytest.raises(ValueError, match="000002.png is not read: .* in none of the formats"):
        register_coco_panoptic(**files)


def test_a_failed_mask_leaves_no_folder(files, tmp_path):
    broken = Path(files["panoptic_root"]) / "000002.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ValueError, match="000002.png is not read: image file is truncated"):
        register_coco_panoptic(**files, sem_seg_root=tmp_path / "masks")
    assert not (tmp_path / "masks").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".masks")]


def _set(section, key, value, number=0):
    return lambda content: content[section][number].update({key: value})


def _segments(*segments):
    return _set("annotations", "segments_info", list(segments))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("categories"), "has no 'categories'"),
        (lambda c: c["categories"][0].pop("isthing"), r"categories\[0\] has no 'isthing'"),
        (_set("categories", "isthing", 2), "'isthing' of category 17 must be 0 or 1, got 2"),
        (_set("categories", "isthing", 1), "differ: id 17: 'wall' in .*, none in "),
        (_set("categories", "name", "disc", 2), "differ: id 1: 'disc' in .*, 'circle' in "),
        (_set("annotations", "image_id", 77), "image 77 names an image that is not in the file"),
        (_set("annotations", "image_id", 2), "image 2: another annotation"),
        (_set("annotations", "file_name", "../a.png"), "must have no folder, got '../a.png'"),
        (_set("annotations", "segments_info", None), "'segments_info' must be a list of objects"),
        (_segments({"id": 1}), "a segment has no 'category_id'"),
        (_segments({"id": 0, "category_id": 1}), "segment ids must be 1 to 16777215.* got 0"),
        (_segments({"id": 5, "category_id": 6}), "segment 5 names category 6"),
        (_segments({"id": 5, "category_id": 9}), "000001.png has segments that .* does not list"),
        (
            lambda c: c["annotations"][1]["segments_info"].append({"id": 7, "category_id": 9}),
            "000002.png lacks segments that .* lists: 7",
        ),
        (_set("images", "width", 65), "must be RGB of 65 x 64 pixels.*got RGB of 64 x 64"),
        (lambda c: c["annotations"].pop(), "1 image in only one of .*: 3"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_lack(files, change, message):
    _change(files, change)
    with pytest.raises(ValueError, match=message) as error:
        register_coco_panoptic(**files)
    assert files["panoptic_json"] in str(error.value)


def test_missing_pictures_and_pictures_of_another_kind_are_refused(files):
    root = Path(files["panoptic_root"])
    Image.open(root / "000001.png").convert("L").save(root / "000001.png")
    with pytest.raises(ValueError, match="000001.png must be RGB .* got L"):
        register_coco_panoptic(**files)
    (root / "000001.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of the 3 images .*: 000001.png"):
        register_coco_panoptic(**files)
    with pytest.raises(FileNotFoundError, match="panoptic folder .*nowhere"):
        register_coco_panoptic(**{**files, "panoptic_root": "nowhere"})


def test_a_name_cannot_stand_for_other_files(files, tmp_path):
    name = register_coco_panoptic(**files, name="panoptic_test_taken")
    other = tmp_path / "other.json"
    other.write_bytes(Path(files["panoptic_json"]).read_bytes())
    with pytest.raises(ValueError, match=f"{name!r} is taken .*other.json"):
        register_coco_panoptic(**{**files, "panoptic_json": str(other)}, name=name)
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_missing_masks_of_coco_are_reported_with_the_way_to_make_them():
    with pytest.raises(
        FileNotFoundError, match="(?s)panoptic_stuff_val2017.*write_stuff_masks"
    ) as e:
        require_registered(["coco_2017_val_panoptic_separated"])
    assert os.path.join("coco", "panoptic_val2017", "*.png") in str(e.value)


def test_large_segment_ids_survive(tmp_path):
    ids = np.array([[0, 255, 256], [65535, 65536, 256**3 - 1]])
    write_ids(ids, tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 3}],
        "categories": [{"id": i, "name": f"stuff {i}", "isthing": 0} for i in range(1, ids.size)],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "a.png",
                "segments_info": [
                    {"id": int(i), "category_id": n} for n, i in enumerate(ids.flat) if n
                ],
            }
        ],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    write_stuff_masks(tmp_path / "panoptic.json", tmp_path, tmp_path / "masks")
    mask = np.array(Image.open(tmp_path / "masks" / "a.png"))
    np.testing.assert_array_equal(mask, [[255, 1, 2], [3, 4, 5]])

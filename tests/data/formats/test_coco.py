"""COCO files: a good one is summarised and registered, a bad one refused with its lack."""

import json
import os
import re

import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog

from resnest_d2.data import (
    check_coco_json,
    register_coco,
    require_registered,
    require_same_categories,
)

SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def annotation(**changes):
    base = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 4, 4], "iscrowd": 0}
    return base | {"area": 16, "segmentation": SQUARE} | changes


def content(**changes):
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": 8, "width": 8}],
        "annotations": [annotation()],
        "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
    } | changes


@pytest.fixture
def write(tmp_path):
    """Write a COCO file (a dict, or raw bytes) beside a folder with its one image."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()

    def write(data, name="own.json"):
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        (tmp_path / name).write_bytes(raw)
        return str(tmp_path / name), str(tmp_path / "images")

    return write


def test_summary_orders_classes_by_id(write):
    summary = check_coco_json(*write(content()))
    assert summary.class_names == ("cat", "dog")
    assert summary.category_ids == (3, 9)
    assert (summary.num_images, summary.num_annotations) == (1, 1)
    assert summary.has_masks and not summary.has_rle and not summary.has_keypoints


def test_crowds_do_not_count_as_masks_and_empty_annotations_are_fine(write):
    crowd = annotation(iscrowd=1, segmentation={"size": [8, 8], "counts": [64]})
    summary = check_coco_json(*write(content(annotations=[crowd])))
    assert not summary.has_masks and not summary.has_rle
    assert check_coco_json(*write(content(annotations=[]), "empty.json")).num_annotations == 0


def test_rle_and_keypoints_are_noticed(write):
    rle = {"size": [8, 8], "counts": [0, 64]}
    summary = check_coco_json(
        *write(content(annotations=[annotation(segmentation=rle, keypoints=[1, 1, 2])]))
    )
    assert summary.has_masks and summary.has_rle and summary.has_keypoints


def test_a_changed_file_is_read_again(write):
    check_coco_json(*write(content()))
    changed = content(categories=[{"id": 3, "name": "a changed class"}])
    assert check_coco_json(*write(changed)).class_names == ("a changed class",)


CAT = {"id": 3, "name": "cat"}


@pytest.mark.parametrize(
    "data, message",
    [
        (b'{"images": [,]}', "not-json: .* at line 1, column 13"),
        (b"\xff\xd8\xff", "not-json: no UTF-8 text at byte 0"),
        ([1, 2], "must hold an object with images, annotations and cat.*: a list"),
        ({"images": []}, "'images' is empty"),
        (content(categories=[]), "'categories' is empty"),
        (content(images={"a": 1}), "bad-section: 'images' is a dict"),
        (content(annotations=7), "bad-section: 'annotations' is a int"),
        ({"images": content()["images"]}, "no 'categories'; it has .*'images'"),
        (content(images=["a.png"]), r"images\[0\]: bad-image: images\[0\] is a str"),
        (content(images=[{"id": 7}]), r"images\[0\] has no 'file_name'"),
        (content(annotations=[{"id": 1}]), r"annotations\[0\] has no 'image_id'"),
        (content(categories=[{"id": 3}]), r"categories\[0\] has no 'name'"),
        (
            content(categories=[CAT, CAT | {"name": "cow"}]),
            "category 3: duplicate-category-id: cow",
        ),
        (content(annotations=[annotation(category_id=4)]), "annotation 1: unknown-category: 4"),
        (content(annotations=[annotation(image_id=8)]), "annotation 1: unknown-image: 8"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_lack(write, data, message):
    json_file, image_root = write(data)
    with pytest.raises(ValueError, match="(?s)" + re.escape(json_file) + ".*" + message):
        check_coco_json(json_file, image_root)


def test_missing_files_are_named(write, tmp_path):
    json_file, image_root = write(content())
    for bad_json, bad_root, message in [
        (str(tmp_path / "no.json"), image_root, "annotation file .*no.json does not exist"),
        (image_root, image_root, "annotation file .*images is a folder"),
        (json_file, str(tmp_path / "no"), "image folder .*no .*does not exist"),
        (json_file, json_file, "image folder .*own.json .*is a file, not a folder"),
    ]:
        with pytest.raises(FileNotFoundError, match=message):
            check_coco_json(bad_json, bad_root)


def test_missing_images_are_counted_and_the_first_named(write):
    image = content()["images"][0]
    images = [image] + [image | {"id": i, "file_name": f"{i}.png"} for i in range(5)]
    with pytest.raises(FileNotFoundError, match=r"5 of the 6 .*: 0.png, 1.png, 2.png and 2 more"):
        check_coco_json(*write(content(images=images)))


def test_registering_twice_gives_one_name_and_the_classes_at_once(write):
    pair = write(content())
    name = register_coco(*pair)
    assert register_coco(*pair) == name
    assert register_coco(os.path.relpath(pair[0]), pair[1]) == name  # another way to the same file
    assert register_coco(*write(content(), "other.json")) != name
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
    assert [a["category_id"] for a in DatasetCatalog.get(name)[0]["annotations"]] == [0]


def test_a_name_cannot_stand_for_two_pairs(write):
    name = register_coco(*write(content()), name="coco_test_one_pair")
    assert register_coco(*write(content()), name=name) == name
    with pytest.raises(ValueError, match="'coco_test_one_pair' is taken .*other.json"):
        register_coco(*write(content(), "other.json"), name=name)
    with pytest.raises(ValueError, match="'coco_2017_val' is taken"):
        register_coco(*write(content()), name="coco_2017_val")
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_a_file_that_has_changed_is_registered_anew_under_its_name(write):
    name = register_coco(*write(content()))
    changed = content(categories=[{"id": 3, "name": "another class"}], annotations=[])
    assert register_coco(*write(changed)) == name
    assert MetadataCatalog.get(name).thing_classes == ["another class"]
    assert [record["annotations"] for record in DatasetCatalog.get(name)] == [[]]


@pytest.mark.parametrize("annotations", [None, "absent"])
def test_a_file_without_annotations_is_registered_as_images_alone(write, annotations):
    data = content(annotations=annotations)
    if annotations:
        del data["annotations"]
    name = register_coco(*write(data))
    assert [record["annotations"] for record in DatasetCatalog.get(name)] == [[]]
    with open(MetadataCatalog.get(name).json_file) as file:
        assert "annotations" not in json.load(file)  # by which evaluators know it


def test_keypoint_metadata_pairs_left_with_right(write):
    person = {"id": 3, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"]}
    metadata = MetadataCatalog.get(register_coco(*write(content(categories=[person]))))
    assert metadata.keypoint_names == ["nose", "left_eye", "right_eye"]
    assert metadata.keypoint_flip_map == [("left_eye", "right_eye")]


def test_train_and_val_must_have_the_same_classes(write):
    train = check_coco_json(*write(content()))
    require_same_categories(train, check_coco_json(*write(content(), "same.json")))
    val = check_coco_json(*write(content(categories=[{"id": 3, "name": "cow"}]), "val.json"))
    message = "id 3: 'cat' in .*own.json, 'cow' in .*val.json, id 9: 'dog' in .*own.json, none in"
    with pytest.raises(ValueError, match=message):
        require_same_categories(train, val)
    with pytest.warns(DeprecationWarning, match="require_same_categories"):
        from resnest_d2.data import check_same_classes
    assert check_same_classes is require_same_categories


def test_an_unknown_data_set_is_refused_with_near_names():
    with pytest.raises(KeyError, match="'coco_2017_tran'.*coco_2017_train.*--train-json"):
        require_registered(["coco_2017_tran"])


def test_a_known_data_set_without_files_shows_the_tree(write, tmp_path, monkeypatch):
    require_registered([register_coco(*write(content()))])
    require_registered([])
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name, split in (("coco_test_train", "train"), ("coco_test_val", "val")):
        DatasetCatalog.register(name, list)
        MetadataCatalog.get(name).set(
            json_file=str(tmp_path / f"coco/annotations/instances_{split}2017.json"),
            image_root=str(tmp_path / f"coco/{split}2017"),
        )
    try:
        with pytest.raises(FileNotFoundError) as error:
            require_registered(("coco_test_train", "coco_test_val"))
    finally:
        for name in ("coco_test_train", "coco_test_val"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    lines = str(error.value).splitlines()
    assert "coco_test_train, coco_test_val are missing" in lines[0]
    assert lines[1:5] == [
        f"  {tmp_path}/coco/annotations/instances_train2017.json",
        f"  {tmp_path}/coco/train2017/*.jpg",
        f"  {tmp_path}/coco/annotations/instances_val2017.json",
        f"  {tmp_path}/coco/val2017/*.jpg",
    ]
    assert f"DETECTRON2_DATASETS (now {tmp_path})" in lines[5] and "--val-images" in lines[5]


def test_real_coco_files_are_summarised():
    folder = os.environ.get("RESNEST_D2_TEST_DATA")
    if not folder:
        pytest.skip("RESNEST_D2_TEST_DATA is not set")
    root = os.path.join(folder, "coco_val_mini")
    json_file = os.path.join("annotations", "instances_val2017.json")
    summary = check_coco_json(os.path.join(root, json_file), os.path.join(root, "images"))
    assert summary.num_images == 206
    assert len(summary.class_names) == 80 and summary.class_names[0] == "person"
    assert summary.category_ids[-1] == 90
    assert summary.has_masks and not summary.has_rle

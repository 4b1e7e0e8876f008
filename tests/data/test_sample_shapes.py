"""The sample set: reproducible pictures whose annotations are what can be seen."""

import collections
import functools
import hashlib
import json
import multiprocessing
import os

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from resnest_d2.data import check_coco_json, register_coco, sample_set
from resnest_d2.data.sample_shapes import CLASS_NAMES, KEYPOINTS, SHAPES, draw_image

SMALL = {"image_size": 64, "train_images": 4, "val_images": 2}
SMALL_SHA256 = "0c146ea213e13467d06ea589ef82b3b1e2795d2e5eb105c770e2dabcd57b8d85"


def read(json_file):
    with open(json_file, encoding="utf-8") as f:
        return json.load(f)


def digest(files):
    """SHA-256 of a set's pixels and annotation files (PNG bytes depend on the zlib version)."""
    sha = hashlib.sha256()
    for split in ("train", "val"):
        json_file, image_root = files[split]
        with open(json_file, "rb") as f:
            sha.update(f.read())
        for image in read(json_file)["images"]:
            sha.update(np.asarray(Image.open(os.path.join(image_root, image["file_name"]))))
    return sha.hexdigest()


@functools.cache
def picture(split, index):
    return draw_image(seed=0, split=split, index=index, image_size=160)


def pictures(split, count):
    return [picture(split, index) for index in range(1, count + 1)]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return sample_set(str(tmp_path_factory.mktemp("shapes")), **SMALL)


def test_pixels_and_annotations_equal_the_stored_checksum(small_set):
    assert digest(small_set) == SMALL_SHA256


def test_same_seed_draws_the_same_set_and_another_seed_another(small_set, tmp_path):
    assert digest(sample_set(str(tmp_path), **SMALL)) == digest(small_set)
    assert digest(sample_set(str(tmp_path), **SMALL, seed=1)) != digest(small_set)


def test_a_picture_does_not_depend_on_the_size_of_the_set(small_set, tmp_path):
    larger = sample_set(str(tmp_path), image_size=64, train_images=5, val_images=2)
    anns, larger_anns = (read(s["train"][0])["annotations"] for s in (small_set, larger))
    assert larger_anns[: len(anns)] == anns


def test_train_and_val_pictures_differ():
    train, val = (
        {picture.tobytes() for picture, _ in pictures(split, 5)} for split in ("train", "val")
    )
    assert len(train | val) == 10


def test_annotations_describe_the_visible_pixels(small_set):
    for json_file, _ in small_set.values():
        data = read(json_file)
        seen = {i["id"]: np.zeros((i["height"], i["width"]), int) for i in data["images"]}
        for annotation in data["annotations"]:
            mask = mask_util.decode(annotation["segmentation"])
            x, y, w, h = annotation["bbox"]
            assert annotation["area"] == mask.sum() == mask[y : y + h, x : x + w].sum() > 0
            box = mask[y : y + h, x : x + w]
            assert box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
            seen[annotation["image_id"]] += mask
        assert all(mask.max() == 1 for mask in seen.values())  # no overlap, none empty


def test_an_objects_pixels_differ_from_the_ground():
    for picture, objects in pictures("train", 20):
        ground = ~np.any([drawn.mask for drawn in objects], axis=0)
        ground_colour = picture[ground].mean(axis=0)
        for drawn in objects:
            assert abs(picture[drawn.mask].mean(axis=0) - ground_colour).max() > 40


def test_classes_sizes_and_counts_are_spread():
    objects = [objects for _, objects in pictures("train", 150)]
    classes = collections.Counter(drawn.class_name for group in objects for drawn in group)
    areas = np.array([drawn.mask.sum() for group in objects for drawn in group])
    assert set(classes) == set(CLASS_NAMES)
    assert max(classes.values()) < 1.5 * min(classes.values())
    assert 0.4 < (areas < 32**2).mean() < 0.65  # COCO's small
    assert 0 < (areas >= 96**2).mean() < 0.05  # COCO's large
    assert {len(group) for group in objects} == {1, 2, 3, 4, 5, 6}


def test_some_visible_regions_are_split_or_have_holes():
    masks = [
        drawn.mask
        for _, objects in pictures("train", 30)
        for drawn in objects
        if drawn.class_name == "square"
    ]
    assert any((np.diff(mask.astype(int), axis=1) == 1).sum(axis=1).max() > 1 for mask in masks)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_every_shape_fills_its_square(name):
    axis = np.linspace(-1.2, 1.2, 961)
    inside = SHAPES[name](axis[None, :], axis[:, None])
    for side in (0, 1):
        extent = axis[inside.any(axis=side)]
        np.testing.assert_allclose(extent[[0, -1]], [-1, 1], atol=0.02)


def test_keypoints_are_the_corners_around_the_object():
    states = set()
    for _, objects in pictures("train", 40):
        taken = np.zeros((160, 160), bool)
        for drawn in objects:
            keypoints = np.array(drawn.keypoints)
            assert keypoints.shape == (len(KEYPOINTS), 3)
            for x, y, v in drawn.keypoints:
                assert (x, y) == (0, 0) if v == 0 else v == (1 if taken[y, x] else 2)
            taken |= drawn.mask
            states |= set(keypoints[:, 2].tolist())
            if (keypoints[:, 2] > 0).all():
                (left, top), (right, bottom) = keypoints[:, :2].min(0), keypoints[:, :2].max(0)
                rows, columns = np.nonzero(drawn.mask)
                assert left - 1 <= columns.min() and columns.max() <= right + 1
                assert top - 1 <= rows.min() and rows.max() <= bottom + 1
                top_left, top_right, bottom_right, bottom_left = keypoints[:, :2]
                assert top_left[0] < top_right[0] and bottom_left[0] < bottom_right[0]
                assert top_left[1] < bottom_left[1] and top_right[1] < bottom_right[1]
    assert states == {0, 1, 2}


def test_detectron2_loads_and_maps_the_set_with_masks_and_keypoints(small_set):
    json_file, image_root = small_set["train"]
    name = register_coco(json_file, image_root)
    records = load_coco_json(json_file, image_root, name)
    assert len(records) == 4
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == list(CLASS_NAMES)
    assert metadata.keypoint_names == list(KEYPOINTS)
    assert ("top_left", "top_right") in metadata.keypoint_flip_map
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[],
        image_format="RGB",
        use_instance_mask=True,
        use_keypoint=True,
        instance_mask_format="bitmask",
        keypoint_hflip_indices=np.array([1, 0, 3, 2]),
    )
    instances = mapper(records[0])["instances"]
    assert len(instances) == len(records[0]["annotations"])
    assert instances.gt_masks.tensor.flatten(1).any(dim=1).all()
    assert instances.gt_keypoints.tensor.shape[1:] == (4, 3)


def test_the_files_pass_our_own_check(small_set):
    summary = check_coco_json(*small_set["val"])
    assert summary.class_names == CLASS_NAMES
    assert summary.category_ids == (1, 2, 3, 4, 5)
    assert summary.num_images == 2
    assert summary.has_masks and summary.has_rle and summary.has_keypoints
    assert summary.keypoint_names == KEYPOINTS


def test_a_second_call_draws_nothing(small_set, monkeypatch):
    root = os.path.dirname(os.path.dirname(small_set["train"][1]))

    def fail(*args, **kwargs):
        raise AssertionError("drawn again")

    monkeypatch.setattr("resnest_d2.data.sample_shapes._write_split", fail)
    assert sample_set(root, **SMALL) == small_set


def test_the_set_lies_in_the_cache_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    json_file, image_root = sample_set(image_size=64, train_images=1, val_images=1)["train"]
    assert os.path.isfile(json_file) and os.path.isdir(image_root)
    assert json_file.startswith(str(tmp_path / "resnest_d2") + os.sep)


def test_processes_that_start_at_once_share_one_complete_set(small_set, tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)

    def draw():
        start.wait(timeout=60)
        sample_set(str(tmp_path), **SMALL)

    processes = [context.Process(target=draw, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(os.listdir(tmp_path)) == 1  # no temporary folder is left
    assert digest(sample_set(str(tmp_path), **SMALL)) == digest(small_set)


def test_a_slower_process_keeps_the_folder_of_the_faster(small_set, monkeypatch, tmp_path):
    rename = os.rename

    def beaten(source, target):
        os.makedirs(target)
        with open(os.path.join(target, "faster"), "w"):
            pass
        rename(source, target)

    monkeypatch.setattr(os, "rename", beaten)
    json_file, _ = sample_set(str(tmp_path), **SMALL)["train"]
    assert os.listdir(tmp_path / os.listdir(tmp_path)[0]) == ["faster"]


def test_an_interrupted_drawing_leaves_nothing_behind(monkeypatch, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("resnest_d2.data.sample_shapes.draw_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample_set(str(tmp_path), **SMALL)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "key, value", [("image_size", 32), ("train_images", 0), ("val_images", 0), ("seed", -1)]
)
def test_a_value_too_low_is_refused_by_name(key, value, tmp_path):
    with pytest.raises(ValueError, match=f"{key} .*at least .* got {value}"):
        sample_set(str(tmp_path), **{key: value})

"""Folders of images and label maps: what is found, named and left out."""

from pathlib import Path

import numpy as np
import pytest
from label_sets import CLASSES, write_label_set
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog

from resnest_d2.data.folders.label_folders import register_label_maps
from resnest_d2.data.folders.label_maps import check_label_maps, read_class_names

NUM_CLASSES = len(CLASSES)


@pytest.fixture
def folders(tmp_path):
    labels, images = write_label_set(tmp_path, train=6)["train"]
    return images, labels


def test_sound_folders_have_pairs_sizes_and_pixels(folders):
    found = check_label_maps(*folders, NUM_CLASSES)
    assert [pair for pair in found.pairs] == [(f"00000{i}.png",) * 2 for i in range(1, 7)]
    assert found.sizes == [(64, 64)] * 6
    assert found.pixels[None] == 6 * 2 * 64
    assert sum(found.pixels.values()) == 6 * 64 * 64
    assert {p.kind for p in found.problems} <= {"empty-label-class"}


def test_images_of_every_format_and_in_capitals_are_found(folders):
    images, labels = folders
    for number, ending in enumerate((".JPG", ".jp2", ".webp", ".tif"), 1):
        file = Path(images, f"00000{number}.png")
        Image.open(file).save(file.with_suffix(ending))
        file.unlink()
    Path(images, ".hidden.jp2").write_bytes(b"")
    found = check_label_maps(images, labels, NUM_CLASSES)
    names = ["000001.JPG", "000002.jp2", "000003.webp", "000004.tif", "000005.png", "000006.png"]
    assert [image for image, _ in found.pairs] == names


def test_numbers_that_are_not_whole_are_refused(folders):
    images, labels = folders
    for name, value in (("000001", 0.5), ("000002", 1)):
        Path(labels, f"{name}.png").unlink()
        values = np.full((64, 64), value, np.float32)
        Image.fromarray(values).save(Path(labels, f"{name}.tif"))
    found = check_label_maps(images, labels, NUM_CLASSES)
    assert [p.value for p in found.problems if p.kind == "unreadable-label"] == [
        "its numbers are not whole: classes have whole numbers"
    ]
    assert found.pairs[0] == ("000002.png", "000002.tif") and len(found.pairs) == 5


def test_every_problem_is_found_and_its_image_left_out(folders, tmp_path):
    images, labels = map(lambda folder: tmp_path / "train" / folder, ("images", "labels"))
    (labels / "000001.png").unlink()
    Image.new("L", (32, 32)).save(labels / "000002.png")
    values = np.full((64, 64), 9, np.uint8)
    values[0] = 255
    Image.fromarray(values).save(labels / "000003.png")
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[..., 0] = 100
    Image.fromarray(colours).save(labels / "000004.png")
    (labels / "000005.png").write_bytes(b"no image")
    Image.new("L", (64, 64), 255).save(labels / "000006.png")
    Image.new("L", (64, 64)).save(labels / "other.png")
    found = check_label_maps(str(images), str(labels), NUM_CLASSES)
    by_kind = {p.kind: p for p in found.problems if p.kind != "empty-label-class"}
    assert {kind: p.severity for kind, p in by_kind.items()} == {
        "missing-label": "error",
        "surplus-label": "warning",
        "label-size": "error",
        "label-value": "error",
        "label-colours": "error",
        "unreadable-label": "error",
        "ignored-label": "warning",
    }
    assert by_kind["missing-label"].file == str(images / "000001.png")
    assert by_kind["label-size"].value == {"label": [32, 32], "image": [64, 64]}
    assert by_kind["label-value"].value["values"] == [9]
    assert by_kind["label-value"].file == str(labels / "000003.png")
    assert found.pairs == [("000006.png", "000006.png")]


def test_palettes_grey_colours_and_16_bits_are_numbers(folders, tmp_path):
    images, labels = folders
    label = np.asarray(Image.open(f"{labels}/000001.png"))
    palette = Image.fromarray(label)
    palette.putpalette([7, 8, 9] * 256)
    palette.save(f"{labels}/000001.png")
    Image.fromarray(np.repeat(label[..., None], 3, axis=2)).save(f"{labels}/000002.png")
    Image.fromarray(label.astype(np.uint16)).save(f"{labels}/000003.png")
    found = check_label_maps(images, labels, NUM_CLASSES)
    assert len(found.pairs) == 6
    Image.fromarray(label.astype(np.uint16) + 300).save(f"{labels}/000003.png")
    (problem,) = (p for p in check_label_maps(images, labels, NUM_CLASSES).problems if p.value)
    assert problem.kind == "label-value" and problem.value["values"][0] >= 300


def test_another_ignored_value(folders):
    images, labels = folders
    for number in range(1, 7):
        label = np.array(Image.open(f"{labels}/00000{number}.png"))
        label[label == 255] = 6
        Image.fromarray(label).save(f"{labels}/00000{number}.png")
    assert len(check_label_maps(images, labels, NUM_CLASSES, 6).pairs) == 6
    assert not check_label_maps(images, labels, NUM_CLASSES).pairs


def test_folders_that_cannot_be_used_are_refused(folders, tmp_path):
    images, labels = folders
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        check_label_maps(str(tmp_path / "nowhere"), labels, NUM_CLASSES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty has no image"):
        check_label_maps(images, str(tmp_path / "empty"), NUM_CLASSES)
    Image.new("RGB", (64, 64)).save(f"{images}/000001.jpg")
    with pytest.raises(ValueError, match=r"000001\.jpg and 000001\.png differ only in"):
        check_label_maps(images, labels, NUM_CLASSES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sky\nroad\ncar \n\n", ["sky", "road", "car"]),
        ('["sky", "road"]', ["sky", "road"]),
        ('{"classes": ["sky", "road"], "ignore": 255}', ["sky", "road"]),
        ("\ufeffsky\nroad", ["sky", "road"]),
    ],
)
def test_class_names_are_read(text, expected, tmp_path):
    file = tmp_path / "classes"
    file.write_text(text, encoding="utf-8")
    assert read_class_names(file) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it names none"),
        ("sky\n\nroad", "name 2 is empty"),
        ("sky\nroad\nsky", "sky is there twice"),
        ('{"names": []}', "must hold a list of names"),
        ("[1, 2]", "must hold a list of names"),
        ("[", "begins as JSON and is none"),
    ],
)
def test_other_class_files_are_refused(text, message, tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_names(file)


def test_registered_records_and_metadata(folders, tmp_path):
    images, labels = folders
    name = register_label_maps(labels, images, tmp_path / "classes.txt")
    assert name == register_label_maps(labels, images, list(CLASSES))
    record = DatasetCatalog.get(name)[0]
    assert record == {
        "file_name": f"{images}/000001.png",
        "sem_seg_file_name": f"{labels}/000001.png",
        "image_id": "000001",
        "width": 64,
        "height": 64,
    }
    metadata = MetadataCatalog.get(name)
    assert metadata.stuff_classes == list(CLASSES) and metadata.ignore_label == 255
    with pytest.raises(ValueError, match="label-value"):
        register_label_maps(labels, images, CLASSES[:2])

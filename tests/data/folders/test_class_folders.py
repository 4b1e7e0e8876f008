"""Folders of classes: what is found, what is wrong with them."""

import json
import shutil
from pathlib import Path

import pytest
from class_sets import CLASSES, write_class_set
from PIL import Image

from resnest_d2.data.folders.class_folders import check_class_folders, read_folder_names
from resnest_d2.data.folders.overlap import find_overlap
from resnest_d2_command import main


@pytest.fixture
def folders(tmp_path):
    return {split: Path(root) for split, root in write_class_set(tmp_path, train=2, val=1).items()}


def kinds(found) -> dict:
    return {problem.kind: problem for problem in found.problems}


def test_classes_are_numbered_by_the_names_of_their_folders(folders):
    deep = folders["train"] / "red" / "more" / "9.JPG"
    deep.parent.mkdir()
    shutil.copy(folders["train"] / "red" / "0.png", deep)
    (folders["train"] / "red" / "notes.txt").write_text("no image", encoding="utf-8")
    (folders["train"] / ".ipynb_checkpoints").mkdir()
    found = check_class_folders(str(folders["train"]))
    assert found.class_names == list(CLASSES) and not found.problems
    assert found.images == [
        *(("blue/0.png", 0), ("blue/1.png", 0), ("green/0.png", 1), ("green/1.png", 1)),
        *(("red/0.png", 2), ("red/1.png", 2), ("red/more/9.JPG", 2)),
    ]


def test_an_empty_folder_and_a_broken_image_are_errors(folders):
    (folders["train"] / "yellow").mkdir()
    (folders["train"] / "green" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = check_class_folders(str(folders["train"]))
    wrong = kinds(found)
    assert wrong["empty-class-folder"].file == str(folders["train"] / "yellow")
    assert wrong["empty-class-folder"].severity == "error"
    broken = [p for p in found.problems if p.file == str(folders["train"] / "green" / "0.png")]
    assert len(broken) == 1 and broken[0].severity == "error"
    # what is left can be used
    assert found.class_names == list(CLASSES) and ("green/0.png", 1) not in found.images


def test_validation_has_the_classes_of_training(folders):
    (folders["val"] / "red").rename(folders["val"] / "rot")
    (folders["val"] / "stray.png").write_bytes(b"x")
    wrong = kinds(check_class_folders(str(folders["val"]), CLASSES))
    assert (wrong["new-class"].severity, wrong["missing-class"].severity) == ("error", "warning")
    assert "'rot'" in wrong["new-class"].value and "'red'" in wrong["missing-class"].value
    assert wrong["stray-image"].severity == "warning"
    found = check_class_folders(str(folders["val"]), CLASSES)
    assert [number for _, number in found.images] == [0, 1]


def test_numbers_are_those_of_the_training_classes(folders):
    shutil.rmtree(folders["val"] / "blue")
    found = check_class_folders(str(folders["val"]), CLASSES)
    assert found.class_names == list(CLASSES)
    assert found.images == [("green/0.png", 1), ("red/0.png", 2)]


def test_folders_get_the_names_of_a_file(folders, tmp_path):
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"blue": "sky", "green": "meadow", "red": "fire"}), encoding="utf-8")
    found = check_class_folders(str(folders["val"]), names=read_folder_names(file))
    assert found.class_names == ["sky", "meadow", "fire"]
    with pytest.raises(ValueError, match="no name for the folder .*red"):
        check_class_folders(str(folders["val"]), names={"blue": "a", "green": "b"})
    with pytest.raises(ValueError, match="blue and green of .* are both 'a'"):
        check_class_folders(str(folders["val"]), names={"blue": "a", "green": "a", "red": "c"})


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', '{"a": " "}', "\x00"])
def test_a_wrong_file_of_names_is_refused(text, tmp_path):
    (tmp_path / "names.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="names.json"):
        read_folder_names(tmp_path / "names.json")


def test_a_folder_without_folders_shows_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_class_folders(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="CLASS/IMAGE"):
        check_class_folders(str(tmp_path))


def test_stats_count_the_images_of_each_class(folders, capsys):
    (folders["train"] / "red" / "0.png").unlink()
    assert main(["data", "stats", "--train-images", str(folders["train"]), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["classes"] == [["blue", 2], ["green", 2], ["red", 1]] and stats["images"] == 5
    assert stats["image_sizes"] == {"width": [60, 60, 60], "height": [40, 40, 40]}
    assert main(["data", "stats", "--train-images", str(folders["train"])]) == 0
    assert "20.00%" in capsys.readouterr().out


def test_check_compares_validation_with_training(folders, capsys):
    (folders["val"] / "red").rename(folders["val"] / "rot")
    options = ["--train-images", str(folders["train"]), "--val-images", str(folders["val"])]
    assert main(["data", "check", *options]) == 1
    printed = capsys.readouterr().out
    assert "new-class" in printed and "1 error, 1 warning" in printed


def test_a_sheet_shows_images_with_their_classes(folders, tmp_path):
    sheet = tmp_path / "sheet.png"
    options = ["--train-images", str(folders["train"]), "--out", str(sheet), "--num", "3"]
    assert main(["data", "show", *options, "--quiet"]) == 0
    assert Image.open(sheet).size > (800, 600)


def test_links_are_followed_once_and_not_into_other_classes(folders):
    (folders["train"] / "red" / "all").symlink_to("..")
    (folders["train"] / "green" / "blue").symlink_to("../blue")
    (folders["train"] / "blue" / "self").symlink_to(".")
    found = check_class_folders(str(folders["train"]))
    assert found.images == [(f"{n}/{i}.png", k) for k, n in enumerate(CLASSES) for i in range(2)]


def test_shared_images_are_found_and_left_out_of_training(folders, capsys):
    shutil.copy(folders["val"] / "red" / "0.png", folders["train"] / "blue" / "copy.png")
    options = ["--train-images", str(folders["train"]), "--val-images", str(folders["val"])]
    assert main(["data", "check", *options]) == 1
    assert "blue/copy.png: same-picture: " in capsys.readouterr().out
    learned, scored = (check_class_folders(str(folders[split])) for split in ("train", "val"))
    find_overlap([learned], [scored])
    assert len(learned.images) == len(learned.sizes) == 6 and len(scored.images) == 3
    same = [str(folders["train"])] * 2
    assert main(["data", "check", "--train-images", same[0], "--val-images", same[1]]) == 0
    assert "same-set" in capsys.readouterr().out


def test_the_folder_above_is_refused(folders):
    with pytest.raises(ValueError, match="has the folders train and val"):
        check_class_folders(str(folders["train"].parent))

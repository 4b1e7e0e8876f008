"""Files of weights: read or refused, and nothing in them is run."""

import math
import pickle
from datetime import date
from pathlib import Path

import pytest
import torch

from detectron2.config import get_cfg

from resnest_d2 import get_config
from resnest_d2.checkpoint import find_checkpoint, parse_config, read_record, read_weights


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code in the file was run",))


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"model": _Bomb()}, path)
    with pytest.raises(ValueError, match="bomb.pth is not a checkpoint of tensors") as refusal:
        read_weights(path)
    assert "succeed" not in str(refusal.value)  # torch's advice is to load it unsafely
    path.write_bytes(pickle.dumps({"model": _Bomb()}))
    with pytest.raises(ValueError, match="bomb.pth is not a checkpoint of tensors"):
        read_weights(path)


def test_refusal_names_what_is_no_plain_type(tmp_path):
    torch.save({"model": {"x": torch.ones(1)}, "meta": {"when": date(2026, 1, 2)}}, tmp_path / "a")
    with pytest.raises(ValueError, match="a is not .*datetime.date, which could run code"):
        read_weights(tmp_path / "a")


@pytest.mark.parametrize(
    "content",
    [b"", b"<!doctype html><title>404</title>", b"PK\x03\x04cut", b"0.", b"J12", b"\x80\x02a."],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="file.pth"):
        read_weights(path)


def test_missing_checkpoint_and_empty_run_are_named(tmp_path):
    for read in (find_checkpoint, read_weights):
        with pytest.raises(FileNotFoundError, match="none.pth"):
            read(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match="no last_checkpoint"):
        find_checkpoint(tmp_path)


def test_file_without_record_is_refused(tmp_path):
    torch.save({"model": {"w": torch.ones(1)}, "iteration": 3}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="x.pth has no entry 'resnest_d2'"):
        read_record(read_weights(tmp_path / "x.pth"))


GOOD = {"config": "VERSION: 2", "class_names": ["a", "b"], "version": "1", "category_ids": [3, 1]}
WRONG = (7, 2.5, True, "text", ["a"], [["a", "b"]], [None, "b"], {"a": "b"}, [math.nan, 1], (1, 2))
OWN = {  # for an entry what is wrong with it alone
    "config": [
        "- 1",
        "[",
        "a: &x [*x]",
        "x: {<<: {a: 1}}",
        "a: 2026-01-02",
        "\ud800",
        " " * 200_000,
    ],
    "class_names": [["\ud800", "b"], ["a", 1], [b"a", "b"], None],
    "category_ids": [[1, 1], [1], [True, 2], [1, 2.0], [1, 1 << 70], ["1", "2"]],
    "version": [["1"], None, "\udfff"],
}


def save_record(path: Path, record: object) -> Path:
    torch.save({"model": {"w": torch.ones(1)}, "resnest_d2": record}, path)
    return path


def test_a_record_is_read_as_it_was_written(tmp_path):
    for record in (
        GOOD,
        {"config": "{}", "class_names": []},
        {**GOOD, "config": "a: &x [1]\nb: *x"},
    ):
        assert read_record(read_weights(save_record(tmp_path / "x.pth", record))) == record


@pytest.mark.parametrize("key", OWN)
def test_a_record_of_wrong_types_is_refused_with_the_entry_and_the_file(tmp_path, key):
    allowed = {"config": ["text"], "version": ["text"], "class_names": [["a"]], "category_ids": []}
    wrong = [value for value in WRONG if value not in allowed[key] and type(value) is not str]
    wrong += [] if key in ("config", "version") else ["text"]
    for value in (*wrong, *OWN[key]):
        path = save_record(tmp_path / "x.pth", {**GOOD, "category_ids": [], key: value})
        if key == "category_ids" and value == [1]:
            path = save_record(path, {**GOOD, key: value})
        with pytest.raises(ValueError, match=f"x.pth is damaged: .*{key}") as refusal:
            read_weights(path)
        assert str(refusal.value).isprintable() and len(str(refusal.value)) < len(str(path)) + 300


@pytest.mark.parametrize("record", [None, "text", [], 3, ["config"]])
def test_a_record_that_is_no_dict_is_refused(tmp_path, record):
    with pytest.raises(ValueError, match="x.pth is damaged: its entry 'resnest_d2' must be a dict"):
        read_weights(save_record(tmp_path / "x.pth", record))


def test_a_configs_references_are_read_unless_they_make_it_endless():
    text = get_config("mask_rcnn_resnest50_fpn").dump()
    assert "*id001" in text  # Detectron2's own have some
    assert parse_config(text) == get_cfg().load_cfg(text)
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    with pytest.raises(ValueError, match="again and again"):
        parse_config(laughs)
    odd = ("a: !!timestamp x", "a: !!int ''", "a: !!float ''", "a: !!float 1" + ":9" * 400)
    deep = ("a: " + "[" * 5000, "a: " + "[" * 150 + "]" * 150)
    for text in (*deep, *odd, laughs.replace("a0:", "<<:")):
        with pytest.raises(ValueError, match="no YAML of a config"):
            parse_config(text)

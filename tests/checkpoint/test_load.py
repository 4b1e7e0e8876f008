"""Files of weights: read or refused, and nothing in them is run."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from resnest_d2.checkpoint import StoredWeights, find_checkpoint, read_record, read_weights


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
    torch.save({"model": {"x": np.float64(1.0)}}, tmp_path / "numpy.pth")
    with pytest.raises(ValueError, match="numpy.pth .*multiarray.scalar"):
        read_weights(tmp_path / "numpy.pth")


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


def stored(**metadata) -> StoredWeights:
    return StoredWeights(Path("x.pth"), {}, "pth", "", metadata)


def test_file_without_record_is_refused():
    with pytest.raises(ValueError, match="x.pth has no entry 'resnest_d2'"):
        read_record(stored(iteration=3))


GOOD = {"config": "VERSION: 2", "class_names": ["a"], "version": "1"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("text", "resnest_d2"),
        ({**GOOD, "config": None}, "config"),
        ({"config": ""}, "class_names"),
    ],
)
def test_damaged_record_is_refused(record, message):
    assert read_record(stored(resnest_d2=GOOD)) == GOOD
    with pytest.raises(ValueError, match=f"x.pth.*{message}"):
        read_record(stored(resnest_d2=record))

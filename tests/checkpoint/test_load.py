"""Files of weights: found or refused, and nothing in them is run."""

import pickle

import numpy as np
import pytest
import torch

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager

from resnest_d2.checkpoint import (
    find_checkpoint,
    read_checkpoint,
    read_record,
    register_handler,
    resolve_weights,
)


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("file", ["net", "net.pth", "net.pkl", "net-0123abcd.pth"])
def test_named_weights_are_found_in_the_folder(weights_folder, file):
    (weights_folder / file).touch()
    assert resolve_weights("resnest://net") == str(weights_folder / file)


def test_exact_name_wins_over_a_published_one(weights_folder):
    for file in ("net.pth", "net-0123abcd.pth"):
        (weights_folder / file).touch()
    assert resolve_weights("resnest://net") == str(weights_folder / "net.pth")


def test_several_published_files_are_ambiguous(weights_folder):
    for file in ("net-0123abcd.pth", "net-89abcdef.pth"):
        (weights_folder / file).touch()
    with pytest.raises(ValueError, match="ambiguous.*net-0123abcd.pth, net-89abcdef.pth"):
        resolve_weights("resnest://net")


def test_two_formats_of_a_name_are_ambiguous(weights_folder):
    for file in ("net.pth", "net.pkl"):
        (weights_folder / file).touch()
    with pytest.raises(ValueError, match="ambiguous.*net.pth, net.pkl"):
        resolve_weights("resnest://net")


def test_a_longer_name_is_another_network(weights_folder):
    for file in ("net-fast-0123abcd.pth", "net-deadbeef-old.pth", "net-abc.pth"):
        (weights_folder / file).touch()
    with pytest.raises(FileNotFoundError, match="net"):
        resolve_weights("resnest://net")


@pytest.mark.parametrize("name", ["", "*", "../net", "/net", "folder/net", ".."])
def test_only_a_plain_name_is_looked_for(weights_folder, name):
    (weights_folder / "net.pth").touch()
    with pytest.raises(ValueError, match="resnest://NAME"):
        resolve_weights(f"resnest://{name}")


def test_missing_named_weights_name_both_ways_out(weights_folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match="net.pth.*MODEL.WEIGHTS FILE.*FREEZE_AT 0"):
        resolve_weights("resnest://net")
    monkeypatch.delenv("RESNEST_D2_WEIGHTS")
    with pytest.raises(FileNotFoundError, match="RESNEST_D2_WEIGHTS is not set"):
        resolve_weights("resnest://net")


def test_missing_file_is_refused_and_other_prefixes_pass(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.pth does not exist"):
        resolve_weights(str(tmp_path / "no.pth"))
    assert resolve_weights("detectron2://a/b.pkl") == "detectron2://a/b.pkl"
    (tmp_path / "own.pth").touch()
    query = f"{tmp_path}/own.pth?matching_heuristics=True"
    assert resolve_weights(query) == query


def test_stock_detectron2_opens_named_weights(weights_folder):
    register_handler()
    (weights_folder / "net.pth").write_bytes(b"weights")
    assert PathManager.isfile("resnest://net")
    assert not PathManager.isfile("resnest://other")
    assert PathManager.get_local_path("resnest://net") == str(weights_folder / "net.pth")
    with PathManager.open("resnest://net", "rb") as file:
        assert file.read() == b"weights"
    with pytest.raises(ValueError, match="read only"):
        PathManager.open("resnest://net", "wb")
    assert (weights_folder / "net.pth").read_bytes() == b"weights"


def test_stock_checkpointer_loads_named_weights_by_suffix_too(weights_folder):
    register_handler()
    expected = torch.full((2, 2), 7.0)
    torch.save({"weight": expected, "bias": torch.zeros(2)}, weights_folder / "net-0123abcd.pth")
    for uri in ("resnest://net", "resnest://net?matching_heuristics=True"):
        model = torch.nn.Linear(2, 2)
        DetectionCheckpointer(model).load(uri)
        torch.testing.assert_close(model.weight.detach(), expected)
        assert resolve_weights(uri) == str(weights_folder / "net-0123abcd.pth")


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code in the file was run",))


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"model": _Bomb()}, path)
    with pytest.raises(ValueError, match="bomb.pth is not a checkpoint of tensors") as refusal:
        read_checkpoint(path)
    assert "succeed" not in str(refusal.value)  # torch's advice is to load it unsafely
    path.write_bytes(pickle.dumps({"model": _Bomb()}))
    with pytest.raises(ValueError, match="bomb.pth is not a checkpoint of tensors"):
        read_checkpoint(path)


def test_refusal_names_what_is_no_plain_type(tmp_path):
    torch.save({"model": {"x": np.float64(1.0)}}, tmp_path / "numpy.pth")
    with pytest.raises(ValueError, match="numpy.pth .*multiarray.scalar"):
        read_checkpoint(tmp_path / "numpy.pth")


@pytest.mark.parametrize(
    "content",
    [b"", b"<!doctype html><title>404</title>", b"PK\x03\x04cut", b"0.", b"J12", b"\x80\x02a."],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="file.pth"):
        read_checkpoint(path)


def test_missing_checkpoint_and_empty_run_are_named(tmp_path):
    for read in (find_checkpoint, read_checkpoint):
        with pytest.raises(FileNotFoundError, match="none.pth"):
            read(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match="no last_checkpoint"):
        find_checkpoint(tmp_path)


def test_run_folder_means_its_last_checkpoint(tmp_path):
    (tmp_path / "model_0000009.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    assert find_checkpoint(tmp_path) == tmp_path / "model_0000009.pth"


@pytest.mark.parametrize("checkpoint", [{"model": {}}, {"resnest_d2": {}}, {}])
def test_file_without_record_or_model_is_refused(checkpoint):
    with pytest.raises(ValueError, match="x.pth has no entry '(resnest_d2|model)'"):
        read_record(checkpoint, "x.pth")


GOOD = {"config": "VERSION: 2", "class_names": ["a"], "version": "1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": []}, "model"),
        ({"resnest_d2": "text"}, "resnest_d2"),
        ({"resnest_d2": {**GOOD, "config": None}}, "config"),
        ({"resnest_d2": {"config": ""}}, "class_names"),
    ],
)
def test_damaged_record_is_refused(change, message):
    checkpoint = {"model": {}, "resnest_d2": GOOD}
    assert read_record(checkpoint, "x.pth") == GOOD
    with pytest.raises(ValueError, match=f"x.pth.*{message}"):
        read_record({**checkpoint, **change}, "x.pth")

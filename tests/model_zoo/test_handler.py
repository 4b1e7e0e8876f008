"""``resnest://NAME``: which file it means, for our checks and for stock Detectron2."""

import pytest
import torch

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager

from resnest_d2.model_zoo import register_handler, resolve_weights


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

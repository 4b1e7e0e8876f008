"""Files of weights: read as they are whatever their name, written whole or not at all."""

import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hostile import legacy, torch_pickle, torch_pickles, zipped

from resnest_d2.checkpoint import RECORD_KEY, read_weights, write_weights


def weights(dtype=torch.float32) -> dict[str, torch.Tensor]:
    return {
        "conv.weight": torch.randn(4, 3, 2).to(dtype),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 5),
    }


def arrays(tensors) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in tensors.items()}


def assert_same_bytes(actual, expected):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype and actual[name].shape == value.shape
        assert torch.equal(actual[name], value), name


def write(path, content, kind: str):
    """Save in one of the containers."""
    if kind == "zip":
        torch.save(content, path)
    elif kind == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif kind == "safetensors":
        safetensors.torch.save_file(content, path)
    else:
        path.write_bytes(pickle.dumps(arrays(content), int(kind.removeprefix("pickle"))))
    return path


@pytest.mark.parametrize(
    ("kind", "container"),
    [("zip", "pth"), ("legacy", "pth"), ("safetensors", "safetensors")]
    + [(f"pickle{protocol}", "pkl") for protocol in range(6)],
)
@pytest.mark.parametrize("name", ["weights", "weights.pth", "weights.pkl", "weights.safetensors"])
def test_the_container_is_told_from_the_contents_not_the_name(tmp_path, kind, container, name):
    expected = weights()
    stored = read_weights(write(tmp_path / name, expected, kind))
    assert stored.container == container and stored.path == tmp_path / name
    assert_same_bytes(dict(sorted(stored.tensors.items())), dict(sorted(expected.items())))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8])
def test_types_are_kept(tmp_path, kind, dtype):
    expected = {"w": weights(torch.float64)["conv.weight"].to(dtype)}
    assert_same_bytes(read_weights(write(tmp_path / "w", expected, kind)).tensors, expected)


def test_safetensors_of_every_header_length_are_recognised(tmp_path):
    for size in range(64):  # a length that begins with the byte of a pickle among them
        path = tmp_path / f"{size}"
        expected = {"w" * 8 * (size + 1): torch.ones(2)}
        assert_same_bytes(read_weights(write(path, expected, "safetensors")).tensors, expected)


def test_arrays_of_python_2_and_of_other_byte_and_memory_orders_are_read(tmp_path):
    big = np.arange(6, dtype=">f4").reshape(2, 3)
    columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    path = tmp_path / "weights.pkl"
    # Python 2 wrote an array's bytes as its own kind of text.
    python2 = (
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x08" + np.array([-1.5, 2.0], "<f4").tobytes() + b"tbs."
    )
    for data, expected in (
        (pickle.dumps({"w": big}), torch.arange(6.0).reshape(2, 3)),
        (pickle.dumps({"w": columns}, 2), torch.arange(6.0).reshape(2, 3).double()),
        (pickle.dumps({"w": np.float64(2)}), torch.tensor(2.0, dtype=torch.float64)),
        (python2, torch.tensor([-1.5, 2.0])),
    ):
        path.write_bytes(data)
        stored = read_weights(path).tensors["w"]
        torch.testing.assert_close(stored, expected, rtol=0, atol=0)
        stored += 1  # it is no view of something read-only


@pytest.mark.parametrize(
    ("content", "beside"),
    [
        (lambda w: w, {}),
        (lambda w: {"model": w, "iteration": 7, "size": torch.Size([2, 3])}, ...),
        (lambda w: {"state_dict": w, "meta": {"epoch": 12, "CLASSES": ("cat",)}}, ...),
    ],
    ids=["flat", "model", "state_dict"],
)
def test_wrappers_are_taken_off_and_what_lay_beside_is_kept(tmp_path, content, beside):
    expected = weights()
    whole = content(expected)
    if beside is ...:
        beside = {key: value for key, value in whole.items() if key not in ("model", "state_dict")}
    for kind in ("zip", "legacy"):
        stored = read_weights(write(tmp_path / kind, whole, kind))
        assert stored.metadata == beside
        assert_same_bytes(stored.tensors, expected)


def test_detectron2_marks_of_a_pickle_are_kept_and_bare_names_are_marked_as_caffe2(tmp_path):
    path = tmp_path / "weights.pkl"
    for content, metadata in (
        ({"model": {"w": np.ones(1)}, "__author__": "x"}, {"__author__": "x"}),
        ({"w": np.ones(1), "w_momentum": np.ones(1)}, None),
        ({"blobs": {"w": np.ones(1)}, "cfg": "text"}, None),
    ):
        path.write_bytes(pickle.dumps(content, 2))
        stored = read_weights(path)
        expected = metadata or {"__author__": "Caffe2", "matching_heuristics": True}
        assert stored.metadata == expected
        assert list(stored.tensors) == ["w"]


def test_the_prefix_of_distributed_training_is_taken_away_where_all_names_have_it(tmp_path):
    one = torch.ones(1)
    path = write(tmp_path / "w.pth", {"module.a": one, "module.b": one}, "zip")
    assert list(read_weights(path).tensors) == ["a", "b"]
    path = write(tmp_path / "w.pth", {"module.a": one, "b": one}, "zip")
    assert list(read_weights(path).tensors) == ["module.a", "b"]


def test_parameters_state_dict_versions_and_shared_storages_are_read(tmp_path):
    layer = torch.nn.BatchNorm1d(3)
    both = torch.arange(6.0)
    content = {**layer.state_dict(keep_vars=True), "first": both[:3], "all": both}
    for kind in ("zip", "legacy"):
        assert_same_bytes(
            read_weights(write(tmp_path / kind, content, kind)).tensors,
            {name: value.detach() for name, value in content.items()},
        )
        versioned = write(tmp_path / kind, layer.state_dict(), kind)
        assert_same_bytes(read_weights(versioned).tensors, layer.state_dict())


@pytest.mark.parametrize("value", [np.complex64(1j), np.datetime64("2026-01-01")])
def test_what_is_no_number_of_numpy_stays_refused(tmp_path, value):
    path = write(tmp_path / "weights.pth", {"model": weights(), "beside": value}, "zip")
    with pytest.raises(ValueError, match="weights.pth is not a checkpoint of tensors and plain"):
        read_weights(path)


def test_a_file_with_code_names_the_option_for_files_that_are_trusted(tmp_path):
    path = write(tmp_path / "weights.pth", {"model": weights(), "beside": Path("a")}, "zip")
    with pytest.raises(ValueError, match=r"could run code.*convert FILE OUT.pth --trust-pickle"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    expected = weights()
    metadata = {"note": "a text", RECORD_KEY: {"config": "VERSION: 2\n", "class_names": ["[a]"]}}
    path = tmp_path / f"weights{suffix}"
    write_weights(expected, path, metadata=metadata)
    stored = read_weights(path)
    assert_same_bytes(dict(sorted(stored.tensors.items())), dict(sorted(expected.items())))
    assert {key: stored.metadata[key] for key in metadata} == metadata
    path.with_suffix(".touched").touch()
    assert path.stat().st_mode == path.with_suffix(".touched").stat().st_mode


def test_a_view_takes_only_its_own_bytes_into_a_file(tmp_path):
    whole = torch.zeros(1_000_000)
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"w{suffix}"
        write_weights({"a": whole[:2], "b": whole[:2], "c": torch.ones(2, 3).t()}, path)
        assert path.stat().st_size < 10_000
        torch.testing.assert_close(read_weights(path).tensors["c"], torch.ones(3, 2))


def test_safetensors_metadata_is_json_for_other_tools(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights({"w": torch.ones(1)}, path, metadata={"provenance": {"source": "a.pth"}})
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["provenance"]) == {"source": "a.pth"}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"\.pth or \.safetensors"):
        write_weights({"w": torch.ones(1)}, tmp_path / "w.bin")
    with pytest.raises(ValueError, match="w.pth is not written.*plain types"):
        write_weights({"w": torch.ones(1)}, path, metadata={"x": object()})
    assert os.listdir(tmp_path) == ["w.pth"] and path.read_bytes() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of this kind")
def test_a_disk_that_fills_up_leaves_the_old_file_and_nothing_else(tmp_path):
    paths = [tmp_path / "w.pth", tmp_path / "w.safetensors"]
    for path in paths:
        path.write_bytes(b"old")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for path in paths:
            with pytest.raises(OSError):
                write_weights({"w": torch.ones(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tmp_path.iterdir()) == paths
    assert {path.read_bytes() for path in paths} == {b"old"}


def test_refusals_name_the_tensor(tmp_path):
    one, path = torch.ones(1), tmp_path / "w.pth"
    for content, message in (
        ({"model": {"a": one, "b.c": 7}}, "its b.c is a int, not a tensor"),
        ({"model": {"state_dict": {"a": one}}}, "its state_dict is a dict, not a tensor"),
        ({"a": one, "head.bias": torch.tensor([0, float("nan")])}, "its head.bias has NaN"),
        ({"a": one, "x": -one / 0}, "its x has NaN or infinite"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=f"w.pth .*{message}"):
            read_weights(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n <!DOCTYPE html><title>404</title>", "an HTML page, saved by a download that failed"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b'{"error": "no"}', "a text file, which begins"),
        (b"PK\x03\x04cut", "cut zip archive"),
        (b"\x89PNG\r\n\x1a\n", "another kind of file"),
    ],
)
def test_what_is_no_file_of_weights_is_named(tmp_path, content, reason):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"w.pth is not a checkpoint .*{reason}"):
        read_weights(path)


def test_truncation_at_any_place_is_refused(tmp_path):
    path = tmp_path / "w"
    for kind in ("zip", "legacy", "safetensors", "pickle2", "pickle4"):
        whole = write(path, weights(), kind).read_bytes()
        for size in range(0, len(whole), 37):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError, match="w is not a checkpoint"):
                read_weights(path)


def test_a_trusted_pickle_gives_its_tensors_with_a_warning(tmp_path, caplog):
    path = tmp_path / "w.pkl"
    file = io.BytesIO()
    torch.save({"model": {"w": torch.ones(2)}, "hooks": Ellipsis}, file)
    for content in (pickle.dumps({"model": {"w": np.ones(2, "f4")}, "x": {...}}), file.getvalue()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="w.pkl is not a checkpoint"):
            read_weights(path)
        caplog.clear()
        stored = read_weights(path, trust_pickle=True)
        torch.testing.assert_close(stored.tensors, {"w": torch.ones(2)})
        assert "w.pkl" in caplog.text and "trusted" in caplog.text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pth"):
        read_weights(tmp_path / "none.pth")


def test_complex_numbers_are_refused_in_a_trusted_file_too(tmp_path):
    torch.save({"x": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="its x holds complex numbers"):
        read_weights(tmp_path / "w.pth", trust_pickle=True)


def test_nothing_hides_between_the_records_of_an_archive(tmp_path):
    torch.save({"x": torch.zeros(2)}, tmp_path / "w.pth")
    for hidden in (b"", b"x" * 100):
        with (
            zipfile.ZipFile(tmp_path / "w.pth") as old,
            zipfile.ZipFile(tmp_path / f"{len(hidden)}.pth", "w") as new,
        ):
            for info in old.infolist():
                new.writestr(info.filename, old.read(info))
                new.fp.write(hidden)
                new.start_dir = new.fp.tell()
    assert read_weights(tmp_path / "0.pth").tensors.keys() == {"x"}
    with pytest.raises(ValueError, match="something before or between its records"):
        read_weights(tmp_path / "100.pth")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "w.pth",
            zipped(torch_pickle(), {"archive/data/0": bytes(12)}),
            "record 0 should have 8 bytes and has 12",
        ),
        ("w.pkl", pickle.dumps({"w": np.ones(2, "f4")}) + b"x", "its pickle ends before the file"),
        ("w.pth", legacy(torch_pickles()["legacy_numel"]), "claim more bytes than the file has"),
    ],
    ids=["long record", "trailing byte", "huge storage"],
)
def test_a_file_whose_parts_do_not_fit_is_refused_with_the_reason(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_weights(tmp_path / name)

"""Hostile and damaged files are refused with their reason; nothing of them runs."""

import json
import pickle
import re
import struct
import subprocess
import sys

import hostile
import numpy as np
import pytest
import torch

from resnest_d2.checkpoint import read_weights
from resnest_d2_command import main

# Reads every file in one interpreter: a crash ends it, a hang is ended by the alarm, and memory
# that a file merely claims is not there.
READER = """
import json, resource, signal, sys
from pathlib import Path
from resnest_d2.checkpoint import read_weights
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
for path in sys.stdin.read().splitlines():
    signal.alarm(60)
    print(json.dumps([path, None]), flush=True)  # where it is, should it end here
    try:
        outcome = ["read", ", ".join(read_weights(path).tensors)]
    except ValueError as error:
        outcome = ["refused", str(error)]
    except BaseException as error:
        outcome = [type(error).__name__, str(error)]
    print(json.dumps([path, outcome]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
def test_every_hostile_file_is_refused_with_its_reason_and_nothing_runs(tmp_path):
    markers, folder = tmp_path / "markers", tmp_path / "files"
    markers.mkdir()
    folder.mkdir()
    paths = hostile.write_hostile_files(folder, markers)
    assert len(paths) >= 200
    for suffix in (".pkl", "_zip.pth", "_legacy.pth", ".safetensors"):
        assert sum(path.name.endswith(suffix) for path in paths) >= 20

    result = subprocess.run(
        [sys.executable, "-c", READER],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )

    outcomes = dict(map(json.loads, result.stdout.splitlines()))
    last = list(outcomes)[-1] if outcomes else None
    assert result.returncode == 0, f"ended at {last}: {result.stderr[-2000:]}"
    assert list(outcomes) == list(map(str, paths))
    others = {path: got for path, got in outcomes.items() if got[0] != "refused"}
    assert not others
    for path, (_, message) in outcomes.items():
        assert message.startswith(f"{path} is not a checkpoint of tensors and plain types: it")
        assert "\n" not in message and len(message) < len(path) + 350, message
    assert not list(markers.iterdir())
    assert sorted(tmp_path.iterdir()) == [folder, markers]


def _targets(value) -> set[str]:
    """The names of a call and of the calls in its arguments."""
    if isinstance(value, (tuple, list)):
        return set().union(*map(_targets, value))
    if isinstance(value, hostile.Call):
        return {value.target} | _targets(value.arguments)
    return set()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("container", ["pickle", "zip"])
def test_each_name_is_refused_by_itself(tmp_path, container, protocol):
    """Of calls in calls the innermost is refused first: it would hide that an outer one is not."""
    names = _targets(list(hostile.calls(tmp_path).values()))
    assert {"builtins.getattr", "builtins.map", "functools.partial", "torch.load"} < names
    path = tmp_path / "weights"
    for name in names - {"_codecs.encode"}:  # which is allowed, to latin1
        data = hostile.pickled({"model": {}, "x": hostile.Call(name)}, protocol)
        path.write_bytes(data if container == "pickle" else hostile.zipped(data, {}))
        with pytest.raises(ValueError, match=f"it holds {re.escape(name)}, which could run code"):
            read_weights(path)


@pytest.mark.parametrize("name", ["zip", "legacy", "pkl", "safetensors"])
def test_the_same_file_without_the_attack_is_read(tmp_path, name):
    path = tmp_path / "weights"
    path.write_bytes(hostile.twins()[name])
    stored = read_weights(path)
    assert stored.container == {"zip": "pth", "legacy": "pth"}.get(name, name)
    torch.testing.assert_close(stored.tensors, {"w": torch.tensor([1.0, 2.0])})


@pytest.mark.parametrize("container", ["pickle", "zip"])
@pytest.mark.parametrize("name", ["os_system", "eval", "exec", "subprocess_output"])
def test_the_attacks_do_run_where_a_pickle_is_trusted(tmp_path, caplog, name, container):
    path = tmp_path / "weights.pkl"
    data = hostile.pickled(hostile.calls(tmp_path)[name])
    path.write_bytes(data if container == "pickle" else hostile.zipped(data, {}))
    with pytest.raises(ValueError, match="weights.pkl"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="weights.pkl"):  # what it returns is no checkpoint
        read_weights(path, trust_pickle=True)
    assert (tmp_path / "ran").exists()
    assert "weights.pkl with its code" in caplog.text


def test_the_command_refuses_a_hostile_file_and_writes_nothing(tmp_path, capsys):
    source, target = tmp_path / "weights.pth", tmp_path / "out.pth"
    source.write_bytes(hostile.zipped(hostile.pickled(hostile.calls(tmp_path)["eval"]), {}))
    assert main(["convert", str(source), str(target)]) == 2
    assert "builtins.eval, which could run code" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("name", ["zip", "legacy", "pkl"])
def test_no_other_reader_sees_a_file_that_is_not_trusted(tmp_path, monkeypatch, name):
    for module, reader in ((torch, "load"), (pickle, "load"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, reader, lambda *args, **kwargs: pytest.fail("was asked"))
    path = tmp_path / "weights"
    path.write_bytes(hostile.twins()[name])
    assert list(read_weights(path).tensors) == ["w"]


KEYS = [1 << 31, -(1 << 31), 2**61 - 1, 0.0, None, (1, 2), b"x", True]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_keys_are_texts_and_small_integers_as_equal_hashes_are_slow(tmp_path, key):
    path = tmp_path / "weights.pth"
    small = {"model": {"w": torch.ones(1)}, "state": {0: 1, (1 << 31) - 1: 2, -7: 3}}
    torch.save(small, path)
    assert read_weights(path).metadata == {"state": small["state"]}
    torch.save({**small, "state": {key: 1}}, path)
    with pytest.raises(ValueError, match="a key that is neither a text nor a small integer"):
        read_weights(path)


def test_what_is_shared_is_read_unless_it_is_shared_without_end(tmp_path):
    path, shared = tmp_path / "weights.pth", [1, 2]
    torch.save({"model": {"w": torch.ones(1)}, "a": [shared, (shared, shared)]}, path)
    assert read_weights(path).metadata == {"a": [[1, 2], ([1, 2], [1, 2])]}
    for _ in range(30):
        shared = [shared, shared]
    torch.save({"model": {"w": torch.ones(1)}, "a": shared}, path)
    with pytest.raises(ValueError, match="refers to the same values again and again"):
        read_weights(path)


def test_numpy_scalars_beside_the_weights_are_read(tmp_path):
    beside = {"AP": np.float64(41.5), "epoch": np.int64(3), "half": np.float16(0.5)}
    beside |= {"done": np.bool_(True), "list": [np.float32(1), np.uint8(2)], "array": np.arange(3)}
    path = tmp_path / "weights.pth"
    for new in (True, False):
        torch.save(
            {"model": {"w": torch.ones(1)}, **beside}, path, _use_new_zipfile_serialization=new
        )
        metadata = read_weights(path).metadata
        np.testing.assert_equal(metadata, beside)
        assert {name: type(value) for name, value in metadata.items()} == {
            name: type(value) for name, value in beside.items()
        }


def test_a_file_of_a_big_endian_machine_is_read(tmp_path):
    path = tmp_path / "weights.pth"
    numbers = {"archive/data/0": struct.pack(">2f", 1, 2), "archive/byteorder": b"big"}
    path.write_bytes(hostile.zipped(hostile.torch_pickle(), numbers))
    torch.testing.assert_close(read_weights(path).tensors["w"], torch.tensor([1.0, 2.0]))

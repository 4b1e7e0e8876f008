"""Hostile and damaged files are refused with their reason; nothing of them runs."""

import json
import re
import subprocess
import sys

import hostile
import pytest
import torch

from resnest_d2.checkpoint import read_weights
from resnest_d2.cli import main

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

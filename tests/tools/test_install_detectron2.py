"""The installer, run as users run it, against stand-ins: no network, nothing really installed.

A stand-in on PYTHONPATH hides the real `pip`, `installer` and `detectron2` of this environment. The
first two write down how they were called.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT, load_tool, needs_checkout

pytestmark = needs_checkout

SCRIPT = ROOT / "tools" / "install_detectron2.py"
RECORDER = """
import pathlib, sys
here = pathlib.Path(__file__).parent.parent
with open(here / "calls.txt", "a") as calls:
    print(pathlib.Path(__file__).parent.name, *sys.argv[1:], file=calls)
if "download" in sys.argv:
    folder = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
    (folder / "sal_detectron2-0.7.2-cp310-none-any.whl").write_bytes(b"not that wheel")
"""
INSTALLED = "__version__ = '9.9'"
MISSING = "raise ImportError('hidden by this test')"


@pytest.fixture
def script():
    return load_tool("install_detectron2")


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """A folder first on PYTHONPATH: recording pip and installer, complete detectron2."""
    files = {
        "pip/__init__.py": "",
        "pip/__main__.py": RECORDER,
        "installer/__init__.py": "",
        "installer/__main__.py": RECORDER,
        "detectron2/__init__.py": INSTALLED,
        "detectron2/model_zoo.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # the stand-ins are rewritten at once
    return tmp_path


def calls(stand_ins: Path) -> list[str]:
    record = stand_ins / "calls.txt"
    return record.read_text().splitlines() if record.exists() else []


def nothing_is_installed(script, monkeypatch) -> None:
    monkeypatch.setattr(script, "installed_version", lambda name: None)


def test_an_importable_detectron2_is_kept(stand_ins):
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert "Kept: detectron2 9.9" in result.stdout
    assert str(stand_ins / "detectron2") in result.stdout
    assert calls(stand_ins) == []


def test_a_folder_named_detectron2_is_not_taken_for_the_package(script, stand_ins):
    (stand_ins / "detectron2" / "__init__.py").write_text("")

    assert script.probe().version is None


def test_a_kept_detectron2_without_its_model_zoo_gets_dependencies_only(
    script, stand_ins, monkeypatch, capsys
):
    (stand_ins / "detectron2" / "model_zoo.py").write_text("import pkg_resources_of_no_one")

    assert script.main([]) == 1  # the recording pip installs nothing, so the last check fails
    (call,) = calls(stand_ins)
    assert call.startswith("pip install") and "setuptools>=70.1,<81" in call
    assert "pkg_resources_of_no_one" in capsys.readouterr().err


def test_a_wrong_hash_installs_nothing(script, stand_ins, monkeypatch, capsys):
    (stand_ins / "detectron2" / "__init__.py").write_text(MISSING)
    nothing_is_installed(script, monkeypatch)

    assert script.main([]) == 1
    (call,) = calls(stand_ins)
    assert call.startswith("pip download") and "sal-detectron2==0.7.2" in call
    message = capsys.readouterr().err
    assert script.WHEEL_SHA256 in message and "Nothing was installed" in message


def test_the_checked_wheel_is_installed_after_its_dependencies(script, stand_ins, monkeypatch):
    (stand_ins / "detectron2" / "__init__.py").write_text(MISSING)
    nothing_is_installed(script, monkeypatch)
    monkeypatch.setattr(script, "check_sha256", lambda file, expected: None)
    monkeypatch.syspath_prepend(stand_ins)  # this process finds the installer too

    assert script.main([]) == 1  # nothing was really installed, and the last check says so
    download, dependencies, wheel = calls(stand_ins)
    assert download.startswith("pip download --quiet --no-deps")
    assert dependencies.startswith("pip install")
    assert not {"torch", "torchvision", "numpy"} & set(dependencies.split())
    assert wheel.startswith("installer ") and wheel.endswith(".whl")


def test_torch_must_be_there_first(script, stand_ins, monkeypatch, capsys):
    (stand_ins / "detectron2" / "__init__.py").write_text(MISSING)
    nothing_is_installed(script, monkeypatch)
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)

    assert script.main([]) == 1
    assert "torch and torchvision must be installed first" in capsys.readouterr().err
    assert calls(stand_ins) == []


def test_a_named_source_is_built_without_isolation(script, stand_ins, monkeypatch):
    (stand_ins / "detectron2" / "__init__.py").write_text(MISSING)
    (stand_ins / "setup.py").touch()
    nothing_is_installed(script, monkeypatch)

    assert script.main(["--source", str(stand_ins)]) == 1
    assert f"pip install --no-build-isolation {stand_ins}" in calls(stand_ins)
    assert not any("download" in call for call in calls(stand_ins))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("git+ssh://git@host/detectron2.git", "git+ssh://git@host/detectron2.git"),
        ("https://host/detectron2.git", "git+https://host/detectron2.git"),
        ("https://host/detectron2.git@v0.6", "git+https://host/detectron2.git@v0.6"),
    ],
)
def test_a_git_url_becomes_what_pip_understands(script, value, expected):
    assert script.build_parser().parse_args(["--source", value]).source == expected


@pytest.mark.parametrize("value", ["no/such/folder", "detectron2", "https://host/page", ""])
def test_another_source_is_refused_with_exit_code_2(script, value, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit) as refusal:
        script.main(["--source", value])

    assert refusal.value.code == 2
    assert f"got {value!r}" in capsys.readouterr().err

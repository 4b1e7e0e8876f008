"""``resnest-d2 doctor``: finds what is broken, where importing the package fails too."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools  # noqa: F401 (before pip, which a test imports: later its distutils were missed)
from checkout import ROOT, needs_checkout

from resnest_d2_command import main
from resnest_d2_command.doctor import children, command, machine, metadata, remedies, software
from resnest_d2_command.doctor.findings import OK, PROBLEM, WARNING, Check, as_table

_ROOT = str(Path(remedies.__file__).resolve().parents[2])  # a checkout, or site-packages

_NO_OPERATORS = "raise RuntimeError('operator torchvision::nms does not exist')"
_ABSENT = "raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)"

_NO_DETECTRON2 = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "detectron2":
            raise ModuleNotFoundError(f"No module named {name!r}", name="detectron2")

sys.meta_path.insert(0, Missing())
"""


def _run(*arguments: str, stubs: Path | None = None, **variables: str):
    """``resnest-d2 ARGUMENTS`` in a new process, with modules that hide the real ones."""
    code = "import sys; from resnest_d2_command import main; sys.exit(main())"
    path = [str(stubs)] if stubs else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, _ROOT]), **variables}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


def _diagnosis(stubs: Path | None = None, **variables: str) -> tuple[int, dict[str, dict]]:
    """The exit code, and the checks by name."""
    done = _run("doctor", "--json", stubs=stubs, **variables)
    checks = json.loads(done.stdout)["checks"]
    assert len({check["name"] for check in checks}) == len(checks)
    return done.returncode, {check["name"]: check for check in checks}


def _stub(folder: Path, **modules: str) -> Path:
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    return folder


def test_a_sound_environment_has_no_problem_and_every_check_is_complete():
    code, checks = _diagnosis()
    assert code == 0
    for check in checks.values():
        assert list(check) == ["group", "name", "status", "found", "remedy"]
        assert check["status"] in (OK, WARNING) and check["found"]
        assert bool(check["remedy"]) == (check["status"] != OK), check
    for name in ("torch", "pkg_resources", "operators", "training step", "COCO", "weights"):
        assert checks[name]["status"] == OK
    assert {"Python", "memory", "detectron2", "detectron2._C", "GPU"} <= set(checks)


def test_operators_that_do_not_load_are_a_problem_with_the_torchvision_for_this_torch(tmp_path):
    code, checks = _diagnosis(_stub(tmp_path, torchvision=_NO_OPERATORS))
    assert code == 1
    right = remedies.matching_torchvision(metadata.version("torch"))
    for name in ("torchvision", "operators"):
        assert checks[name]["status"] == PROBLEM
        assert "operator torchvision::nms does not exist" in checks[name]["found"]
        assert f"--no-deps torchvision=={right}" in checks[name]["remedy"]
        assert checks[name]["remedy"].startswith(sys.executable)
    assert checks["torch"]["status"] == checks["convolution"]["status"] == OK
    for name in ("detectron2", "resnest_d2", "training step"):  # the cause is named, once
        assert checks[name]["found"] == "not tried: torchvision does not work"


@pytest.fixture(scope="module")
def without_pkg_resources(tmp_path_factory):
    """There, with an incomplete COCO, folders that are none, and second distributions."""
    folder = tmp_path_factory.mktemp("without_pkg_resources")
    annotations = folder / "coco" / "annotations"
    annotations.mkdir(parents=True)
    (annotations / "instances_val2017.json").touch()
    (folder / "cache").touch()  # a file, where a folder is needed
    for name, module in (("detectron2", "detectron2"), ("opencv-contrib-python", "cv2")):
        metadata_folder = folder / f"{name.replace('-', '_')}-0.6.dist-info"
        metadata_folder.mkdir()
        (metadata_folder / "METADATA").write_text(f"Name: {name}\nVersion: 0.6\n")
        (metadata_folder / "top_level.txt").write_text(module)
    return _diagnosis(
        _stub(folder, pkg_resources=_ABSENT),
        DETECTRON2_DATASETS=str(folder),
        FVCORE_CACHE=str(folder / "cache"),
        RESNEST_D2_WEIGHTS=str(folder / "none"),
    )


def test_without_pkg_resources_the_remedy_is_a_setuptools_that_has_it(without_pkg_resources):
    code, checks = without_pkg_resources
    assert code == 1
    problems = [check for check in checks.values() if check["status"] == PROBLEM]
    assert [check["name"] for check in problems] == ["pkg_resources"]
    assert "setuptools>=70.1,<81" in problems[0]["remedy"]
    assert checks["detectron2.model_zoo"]["found"] == "not tried: pkg_resources does not work"
    assert checks["training step"]["status"] == OK


def test_data_folders_are_reported(without_pkg_resources):
    checks = without_pkg_resources[1]
    assert checks["COCO"]["status"] == WARNING
    assert "instances_val2017.json without val2017/" in checks["COCO"]["found"]
    assert "export FVCORE_CACHE" in checks["weights"]["remedy"]
    assert checks["RESNEST_D2_WEIGHTS"]["status"] == WARNING


def test_two_distributions_of_the_same_files_are_reported(without_pkg_resources):
    checks = without_pkg_resources[1]
    for name, second in (("opencv", "opencv-contrib-python"), ("distributions", "detectron2")):
        assert checks[name]["status"] == WARNING
        assert "overwrite each other's files" in checks[name]["found"]
        assert "uninstall" in checks[name]["remedy"] and second in checks[name]["remedy"]


def test_the_original_plugins_fork_is_recognised(tmp_path, monkeypatch):
    (tmp_path / "detectron2" / "config").mkdir(parents=True)
    (tmp_path / "detectron2" / "__init__.py").touch()
    (tmp_path / "detectron2" / "config" / "defaults.py").write_text("_C.MODEL.RESNETS.RADIX = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    facts = children.run_steps(["detectron2 files"])["detectron2 files"].facts
    assert facts == {"folder": str(tmp_path / "detectron2"), "package": True, "fork": True}


def test_the_package_and_its_lazy_configs_do_without_pkg_resources(tmp_path):
    _stub(tmp_path, pkg_resources=_ABSENT)
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c"),
            "from resnest_d2.config import get_lazy_config; import resnest_d2.engine\n"
            "print(get_lazy_config('mask_rcnn_resnest50_fpn').train.max_iter)",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), _ROOT])},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "90000\n", done.stderr


def test_without_detectron2_the_remedy_installs_it(tmp_path):
    code, checks = _diagnosis(_stub(tmp_path, sitecustomize=_NO_DETECTRON2))
    assert code == 1
    assert checks["detectron2"]["status"] == PROBLEM
    assert checks["detectron2"]["found"] == "not installed"
    assert remedies.install_detectron2() == checks["detectron2"]["remedy"]
    assert checks["operators"]["status"] == OK


def test_a_folder_named_detectron2_is_not_taken_for_the_package(tmp_path):
    # Before the real one, as the current folder is: `detectron2/` of a user's own files.
    (tmp_path / "detectron2").mkdir()
    hides = _stub(
        tmp_path,
        sitecustomize=f"import sys; sys.path = [{str(tmp_path)!r}, *["
        "p for p in sys.path if 'site-packages' not in p]]",
    )
    _, checks = _diagnosis(hides)
    assert "is a folder of that name, not the package" in checks["detectron2"]["found"]


def test_a_missing_and_a_crashing_library_are_named_and_the_rest_is_still_reported(tmp_path):
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    code, checks = _diagnosis(_stub(tmp_path, cv2=_ABSENT, hotcoco=crash))
    assert code == 1
    assert checks["opencv"]["status"] == checks["hotcoco"]["status"] == PROBLEM
    assert "No module named 'cv2'" in checks["opencv"]["found"]
    assert "opencv-python-headless" in checks["opencv"]["remedy"]
    assert "crashes the process (SIGSEGV)" in checks["hotcoco"]["found"]
    assert checks["operators"]["status"] == checks["pkg_resources"]["status"] == OK


def test_without_torch_the_rest_is_still_reported(tmp_path):
    code, checks = _diagnosis(_stub(tmp_path, torch=_ABSENT))
    assert code == 1
    assert checks["torch"]["status"] == PROBLEM
    assert "install torch torchvision" in checks["torch"]["remedy"]
    assert checks["operators"]["found"] == "not tried: torch does not work"
    assert checks["pillow"]["status"] == checks["pkg_resources"]["status"] == OK


def test_a_library_that_hangs_or_exits_is_left_behind(tmp_path, monkeypatch):
    _stub(tmp_path, hangs="import time; time.sleep(600)", leaves="raise SystemExit('no licence')")
    _stub(tmp_path, dies="import os; os._exit(3)", talks="print('hello')")
    monkeypatch.syspath_prepend(str(tmp_path))
    steps = [f"import {name}" for name in ("talks", "hangs", "leaves", "dies", "json")]
    outcomes = children.run_steps(steps, timeout=4)
    assert list(outcomes) == steps
    assert "stopped after 4 s" in outcomes["import hangs"].error
    assert outcomes["import leaves"].error == "SystemExit: no licence"
    assert "exit code 3" in outcomes["import dies"].error
    assert outcomes["import talks"].worked and outcomes["import json"].worked


def test_steps_are_told_when_they_begin():
    begun = []
    steps = [f"import {name}" for name in ("json", "no_such_module", "csv")]
    children.run_steps(steps, begins=begun.append)
    assert begun == steps


def test_quiet_prints_problems_alone_and_a_terminal_sees_what_is_done(monkeypatch, capsys):
    checks = [Check("a", "sound", OK, "here"), Check("a", "broken", PROBLEM, "gone")]

    def diagnose(begins):
        begins("import torch")
        return checks

    monkeypatch.setattr(command, "diagnose", diagnose)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["doctor", "--quiet"]) == 1
    printed = capsys.readouterr()
    assert "broken" in printed.out and "sound" not in printed.out and not printed.err
    checks.pop()
    assert main(["doctor", "--quiet"]) == 0
    assert not capsys.readouterr().out
    assert main(["doctor"]) == 0
    printed = capsys.readouterr()
    assert "sound" in printed.out and "checking: import torch" in printed.err


def test_other_commands_name_the_failed_import_and_the_doctor(tmp_path):
    done = _run("replay", "none.pth", stubs=_stub(tmp_path, torchvision=_NO_OPERATORS))
    assert done.returncode == 1 and not done.stdout
    assert "operator torchvision::nms does not exist" in done.stderr
    assert done.stderr.count("resnest-d2 doctor") == 1
    assert "Traceback" not in done.stderr


def test_importing_the_package_names_the_cause_and_the_doctor(tmp_path):
    _stub(tmp_path, torchvision=_NO_OPERATORS)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import resnest_d2"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), _ROOT])},
        capture_output=True,
        text=True,
    )
    last = done.stderr.strip().splitlines()[-2:]
    assert last[0].startswith("ImportError: resnest_d2 needs Detectron2, whose import fails")
    assert "operator torchvision::nms does not exist" in last[0]
    assert "resnest-d2 doctor" in last[1]


def test_help_lists_the_doctor_and_unknown_options_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "doctor" in shown and "train" in shown
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--unknown"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("torch", "torchvision"),
    [
        ("2.3.1", "0.18.1"),
        ("2.10.0", "0.25.0"),
        ("2.14.1+cu130", "0.29.1"),
        ("2.15.0.dev20261101", None),
        ("3.0.0", None),
    ],
)
def test_the_torchvision_for_a_torch(torch, torchvision):
    assert remedies.matching_torchvision(torch) == torchvision


def test_a_torch_from_pytorchs_own_index_comes_anew_or_gets_its_torchvision_from_there(monkeypatch):
    monkeypatch.setattr(remedies, "version", lambda name: "2.13.0+cpu")
    command, note = remedies.install_torchvision().splitlines()
    assert "install torch torchvision" in command
    assert note.startswith("# ")
    assert "torchvision 0.28.0" in note


@needs_checkout
def test_a_checkouts_own_installer_is_the_remedy():
    words = shlex.split(remedies.install_detectron2().split("&&")[-1])
    assert words == [sys.executable, str(ROOT / "tools" / "install_detectron2.py")]
    assert Path(words[1]).is_file()


def test_no_probe_runs_twice():
    assert len(software.steps()) == len(set(software.steps()))


@pytest.mark.parametrize(
    ("error", "command"),
    [
        ("ModuleNotFoundError: No module named 'hydra.core'", "hydra-core"),
        ("ImportError: libGL.so.1: cannot open shared object file", "opencv-python-headless"),
        ("RuntimeError: operator torchvision::nms does not exist", "torchvision=="),
        ("ImportError: numpy.core.multiarray failed to import", "--no-cache-dir pycocotools"),
        ("AttributeError: module 'PIL.Image' has no attribute 'LINEAR'", "detectron2"),
    ],
)
def test_known_errors_have_their_own_remedy(error, command):
    assert command in remedies.for_import(error, "pycocotools")


def test_requirements_are_compared():
    assert metadata.satisfies("2.3.1+cu121", ">=2.3") is True
    assert metadata.satisfies("0.17.0", ">=0.18") is False
    assert metadata.satisfies("no version", ">=1") is None
    assert "torch" in [name for name, _ in metadata.requirements("resnest-d2")]
    assert metadata.requirements("not-installed-anywhere") == []


def test_limits_of_the_machine_are_warnings_with_their_remedy(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    monkeypatch.setattr(machine.socket, "gethostbyname", _no_address)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: _Usage())
    checks = {check.name: check for check in machine.check_machine()}
    for name, remedy in {
        "OMP_NUM_THREADS": "export OMP_NUM_THREADS=",
        "host name": "export GLOO_SOCKET_IFNAME=lo",
        "/dev/shm": "--shm-size",
        "disk": "OUTPUT_DIR",
    }.items():
        assert checks[name].status == WARNING
        assert remedy in checks[name].remedy


class _Usage:
    total, free = 2**40, 2**20  # bytes


def _no_address(name):
    raise OSError("Name or service not known")


def test_the_table_fits_and_a_command_stands_once_and_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    remedy = f"# why\n{'very-long-command ' * 10}"
    checks = [
        Check("One", "first", PROBLEM, "word " * 60, remedy),
        Check("One", "second", PROBLEM, "the same cause", remedy),
        Check("Two", "third", OK, "fine"),
    ]
    table = as_table(checks)
    lines = [line for line in table.splitlines() if "→ very" not in line]
    assert max(map(len, lines)) <= 100
    assert table.count(f"→ {remedy.splitlines()[1]}") == 1
    assert "as for first above" in table
    assert "2 problems: first, second." in table

"""What sdist and wheel contain, built from this checkout, offline; what files for tools say."""

import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, needs_checkout

pytestmark = needs_checkout

PACKAGES = ("resnest_d2", "resnest_d2_command")
FILES = {"resnest_d2_doctor.py"}  # an old name
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", *PACKAGES, "configs", *FILES)


def python(folder: Path, *arguments: str) -> str:
    """Run Python in a folder; what it prints."""
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with sdist and wheel; the wheel is built from the sdist.

    All is built in a copy, so that no build folder is left in the checkout.
    """
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    (copy / "tests").mkdir()
    (copy / "tests" / "test_nothing.py").touch()

    # What `python -m build --no-isolation` calls, without build.
    build = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"
    folder = copy / "dist"
    python(copy, "-c", build.format("sdist"), str(folder))
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(copy / "unpacked", filter="data")
    (unpacked,) = (copy / "unpacked").iterdir()
    python(unpacked, "-c", build.format("wheel"), str(folder))
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    (file,) = dist.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def test_an_index_would_take_sdist_and_wheel(dist):
    files = sorted(map(str, dist.iterdir()))
    assert [Path(file).suffix for file in files] == [".whl", ".gz"]
    printed = python(dist, "-m", "twine", "check", "--strict", *files)
    assert printed.count("PASSED") == 2, printed


def metadata(wheel: zipfile.ZipFile):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_the_wheel_carries_every_recipe(wheel):
    files = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "configs").rglob("*.py")]
    recipes = {f"resnest_d2/{path.relative_to(ROOT).as_posix()}" for path in files}

    assert {Path(name).suffix for name in recipes} == {".yaml", ".py"}
    assert recipes == {name for name in wheel.namelist() if "/configs/" in name}


def test_the_wheel_carries_every_module_and_nothing_beside_the_packages(wheel):
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    modules = {path.relative_to(ROOT).as_posix() for path in files} | FILES

    assert modules == {
        name for name in wheel.namelist() if name.endswith(".py") and "/configs/" not in name
    }
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {*PACKAGES, *FILES}


def test_the_wheel_carries_the_catalogs_measurements(wheel):
    assert "resnest_d2/model_zoo/measured.json" in wheel.namelist()
    assert "resnest_d2/model_zoo/catalog.json" in wheel.namelist()


def test_the_wheel_carries_the_page_of_the_report(wheel):
    folder = "resnest_d2/report/templates"
    files = {path.name for path in (ROOT / folder).iterdir()}
    assert files == {
        name.rpartition("/")[2] for name in wheel.namelist() if name.startswith(f"{folder}/")
    }
    assert "report.html.j2" in files


def test_no_requirement_names_detectron2(wheel):
    requirements = metadata(wheel).get_all("Requires-Dist")

    assert any(requirement.startswith("torch>=") for requirement in requirements)
    assert not any("detectron2" in requirement for requirement in requirements)


def test_the_version_has_one_source(wheel):
    text = (ROOT / "resnest_d2" / "version.py").read_text()

    assert f'__version__ = "{metadata(wheel)["Version"]}"' in text


def test_the_command_is_installed(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))

    assert "resnest-d2 = resnest_d2_command:main" in wheel.read(name).decode()


def test_every_lint_has_the_same_version_of_ruff():
    pinned = re.search(r"ruff==([\d.]+)", (ROOT / "setup.py").read_text()).group(1)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["rev"] for repo in hooks["repos"]] == [f"v{pinned}"]


def test_the_citation_has_the_version(wheel):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == metadata(wheel)["Version"]


def test_the_workflow_tests_both_environments():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    job = workflow["jobs"]["test"]
    legs = {path.stem for path in (ROOT / "requirements").glob("*.txt")}
    assert {entry["leg"] for entry in job["strategy"]["matrix"]["include"]} == legs
    assert "make test LEG=${{ matrix.leg }}" in job["steps"][-1]["run"]


@pytest.mark.parametrize("form", ["bug.yml", "feature.yml"])
def test_an_issue_asks_for_the_doctors_report(form):
    template = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / form).read_text())
    labels = [field["attributes"]["label"] for field in template["body"]]
    assert any("resnest-d2 doctor --json" in label for label in labels)

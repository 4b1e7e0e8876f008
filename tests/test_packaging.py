"""What an installed resnest-d2 consists of, seen in a wheel built from this checkout, offline."""

import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from checkout import ROOT, needs_checkout

pytestmark = needs_checkout

PACKAGES = ("resnest_d2", "resnest_d2_command")
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", *PACKAGES, "configs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built in a copy, so that no build folder is left in the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    (copy / "tests").mkdir()
    (copy / "tests" / "test_nothing.py").touch()

    # What `pip wheel --no-build-isolation` calls, without the pip around it.
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    environment = {**os.environ, "PYTHONPATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", build], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    (file,) = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


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
    modules = {path.relative_to(ROOT).as_posix() for path in files}

    assert modules == {
        name for name in wheel.namelist() if name.endswith(".py") and "/configs/" not in name
    }
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


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

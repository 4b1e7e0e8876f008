"""Make `import detectron2` work in the Python that runs this file.

Detectron2 has no file of its own name on the package index. The index's `sal-detectron2` 0.7.2 is
Detectron2 of April 2024 in one wheel, tagged for CPython 3.10 although its Python code runs on
every later version too. So the wheel is downloaded as 3.10 would, its sha256 is compared with the
one written below *before* anything is installed, and `installer` unpacks it where pip would refuse
the tag. On another Python its compiled part stays unused; the R-CNN recipes do without it.

A Detectron2 that is there already is kept, whatever its source. Installing the wheel and the
dependencies never changes the version of an installed torch, torchvision or numpy.

    python tools/install_detectron2.py                          # the pinned wheel
    python tools/install_detectron2.py --source ~/detectron2    # the official source, compiled here

Exit codes: 0 done, 1 failed, 2 refused input.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

PROJECT = "sal-detectron2==0.7.2"
WHEEL_SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"

# 70.1 builds wheels unaided; 81 has no pkg_resources, which detectron2.model_zoo imports.
SETUPTOOLS = "setuptools>=70.1,<81"

# The wheel is installed without its metadata's requirements: their `numpy<2` is out of date.
DEPENDENCIES = (
    "black",
    "cloudpickle",
    "fvcore",
    "hydra-core>=1.1",
    "iopath",
    "matplotlib",
    "omegaconf>=2.1,<2.4",
    "packaging",
    "pillow>=7.1",
    "pycocotools>=2.0.2",
    SETUPTOOLS,
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm>4.29",
    "yacs>=0.1.8",
)
KEPT = ("torch", "torchvision", "numpy")  # pinned to what is installed while pip resolves the rest

# `__version__` is asked for because any folder named detectron2 imports, as a namespace package.
PROBE = """
import json, detectron2
version, path, problem = detectron2.__version__, detectron2.__file__, None
try:
    from detectron2 import model_zoo
except Exception as error:
    problem = f"detectron2.model_zoo: {type(error).__name__}: {error}"
print(json.dumps([version, path, problem]))
"""


class InstallError(RuntimeError):
    """The installation cannot go on; the message says what the user can do."""


class Found(NamedTuple):
    """What a fresh interpreter says of Detectron2: `version` is None where it does not import."""

    version: str | None
    path: str | None
    problem: str | None  # None: `detectron2` and `detectron2.model_zoo` both import


def probe() -> Found:
    """Import Detectron2 in a fresh interpreter, away from the current folder."""
    with tempfile.TemporaryDirectory() as empty:
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROBE],
            cwd=empty,
            capture_output=True,
            text=True,
        )
    if result.returncode:
        return Found(None, None, (result.stderr.strip().splitlines() or ["no message"])[-1])
    return Found(*json.loads(result.stdout.splitlines()[-1]))


def install(source: str | None = None) -> Found:
    """Install what is missing and return what `probe` then finds.

    Args:
        source: what `parse_source` returned; None is the pinned wheel.

    Raises:
        InstallError: a download, its hash, an installation or the final import failed.
    """
    found = probe()
    installed = installed_version("detectron2") or installed_version("sal-detectron2")
    if found.version or installed:
        print(f"Kept: detectron2 {found.version or installed} ({found.path or 'does not import'}).")
        if source:
            print(f"Not installed: {source}. Uninstall the other one first, then run this again.")
        if found.problem:  # most often a dependency that is not there, pkg_resources first of all
            print(f"Installing its dependencies, because of {found.problem}")
            install_dependencies()
    elif source:
        require_torch()
        pip("install", SETUPTOOLS)
        run(sys.executable, "-m", "pip", "install", "--no-build-isolation", source)
        install_dependencies()
    else:
        require_torch()
        with tempfile.TemporaryDirectory() as folder:
            wheel = download_wheel(Path(folder))
            install_dependencies()
            if importlib.util.find_spec("installer") is None:
                pip("install", "installer")
            run(sys.executable, "-m", "installer", str(wheel))

    found = probe()
    if found.problem:
        raise InstallError(f"detectron2 is installed, but does not import: {found.problem}")
    return found


def require_torch() -> None:
    """Raise InstallError without torch and torchvision: which build to take is for the user."""
    missing = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
    if missing:
        raise InstallError(
            f"{' and '.join(missing)} must be installed first, for example: "
            f"{sys.executable} -m pip install torch torchvision"
        )


def download_wheel(folder: Path) -> Path:
    """Download the pinned wheel into an empty `folder` and check it."""
    tag = "--implementation cp --python-version 3.10 --abi none --platform any".split()
    pip("download", "--no-deps", "--only-binary=:all:", *tag, "--dest", str(folder), PROJECT)
    (wheel,) = folder.iterdir()
    check_sha256(wheel, WHEEL_SHA256)
    return wheel


def check_sha256(file: Path, expected: str) -> None:
    """Raise InstallError unless the file's sha256 is `expected` (64 lower-case hex digits)."""
    actual = hashlib.sha256(file.read_bytes()).hexdigest()
    if actual != expected:
        raise InstallError(
            f"{file.name} has sha256 {actual}, expected {expected}. Nothing was installed."
        )


def install_dependencies() -> None:
    """Install Detectron2's dependencies, leaving torch, torchvision and numpy as they are."""
    dependencies = list(DEPENDENCIES)
    # opencv-python and opencv-contrib-python own the same files.
    if importlib.util.find_spec("cv2") is None:
        dependencies.append("opencv-python-headless")
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        versions = {name: installed_version(name) for name in KEPT}
        constraints.write_text(
            "".join(f"{name}=={version}\n" for name, version in versions.items() if version)
        )
        pip("install", "--constraint", str(constraints), *dependencies)


def installed_version(distribution: str) -> str | None:
    """Return the version that this interpreter's metadata names, None where it has none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def pip(command: str, *arguments: str) -> None:
    run(sys.executable, "-m", "pip", command, "--quiet", *arguments)


def run(*command: str) -> None:
    """Run a command with its output visible; a non-zero exit raises InstallError."""
    print("+", *command, flush=True)
    status = subprocess.run(command).returncode
    if status:
        raise InstallError(f"`{' '.join(command)}` exited with {status}.")


def parse_source(value: str) -> str:
    """Return `value` as pip wants it: an existing checkout's absolute path, or a git URL."""
    checkout = Path(value).expanduser()
    if (checkout / "setup.py").is_file():
        return str(checkout.resolve())
    if value.startswith("git+"):
        return value
    if re.match(r"https://\S+\.git(@\S+)?$", value):
        return f"git+{value}"
    raise argparse.ArgumentTypeError(
        f"must be a Detectron2 checkout (a folder with setup.py) or a git URL "
        f"(git+https://…, https://….git), got {value!r}"
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Make detectron2 importable in this Python: keep it where it is, else install "
        f"the checked wheel {PROJECT}. torch and torchvision must be installed already.",
        epilog="Exit codes: 0 done, 1 failed, 2 refused input.",
    )
    parser.add_argument(
        "--source",
        metavar="PATH_OR_GIT_URL",
        type=parse_source,
        help="compile the official source instead, from a checkout or a git URL that you trust: "
        "its setup.py is executed",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        found = install(args.source)
    except InstallError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1
    print(f"Ready: detectron2 {found.version} ({found.path}), Python {sys.version.split()[0]}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

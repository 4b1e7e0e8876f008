"""Make `import detectron2` work in the Python that runs this file.

The package index has no project named detectron2. Its `sal-detectron2` 0.7.2 is Detectron2 of April
2024 as a wheel for CPython 3.10, whose Python code runs on later versions too. The wheel is
downloaded as for 3.10, its sha256 is verified *before* anything is installed, and `installer`
unpacks it, because pip would refuse the tag. The compiled part works on 3.10 only; no recipe needs
it.

A Detectron2 that is installed already is kept, whatever its source. The versions of installed
torch, torchvision and numpy are never changed.

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

# 70.1 builds wheels unaided; 81 has no pkg_resources, which detectron2.model_zoo imports
SETUPTOOLS = "setuptools>=70.1,<81"

# Installed instead of the requirements in the wheel's metadata, whose `numpy<2` is out of date.
DEPENDENCIES = [
    *"black cloudpickle fvcore hydra-core>=1.1 iopath matplotlib omegaconf>=2.1,<2.4".split(),
    *"packaging pillow>=7.1 pycocotools>=2.0.2 tabulate tensorboard termcolor>=1.1".split(),
    *"tqdm>4.29 yacs>=0.1.8".split(),
    SETUPTOOLS,
]
KEPT = ("torch", "torchvision", "numpy")  # pip keeps the installed versions

# Any folder named detectron2 imports as a namespace package, but without `__version__`.
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
    """The installation failed; the message says what to do."""


class Found(NamedTuple):
    """Detectron2 in a new interpreter; `version` is None where it does not import."""

    version: str | None
    path: str | None
    problem: str | None  # None if `detectron2` and `detectron2.model_zoo` import


def probe() -> Found:
    """Import Detectron2 in a new interpreter, outside the current folder."""
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
    """Install what is missing.

    Args:
        source: from `parse_source`; None for the pinned wheel.

    Raises:
        InstallError: a download, its hash, an installation or the final import failed.
    """
    found = probe()
    installed = installed_version("detectron2") or installed_version("sal-detectron2")
    if found.version or installed:
        print(f"Kept: detectron2 {found.version or installed} ({found.path or 'does not import'}).")
        if source:
            print(f"Not installed: {source}. Uninstall the other one first, then run this again.")
        if found.problem:  # mostly a missing dependency, such as pkg_resources
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
            tag = "--implementation cp --python-version 3.10 --abi none --platform any".split()
            pip("download", "--no-deps", "--only-binary=:all:", *tag, "--dest", folder, PROJECT)
            (wheel,) = Path(folder).iterdir()
            check_sha256(wheel, WHEEL_SHA256)
            install_dependencies()
            if importlib.util.find_spec("installer") is None:
                pip("install", "installer")
            run(sys.executable, "-m", "installer", str(wheel))

    found = probe()
    if found.problem:
        raise InstallError(f"detectron2 is installed, but does not import: {found.problem}")
    return found


def require_torch() -> None:
    """Raise InstallError without torch and torchvision, whose build the user must choose."""
    missing = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
    if missing:
        raise InstallError(
            f"{' and '.join(missing)} must be installed first, for example: "
            f"{sys.executable} -m pip install torch torchvision"
        )


def check_sha256(file: Path, expected: str) -> None:
    """Raise InstallError unless the file's sha256 is `expected` (lower-case hex)."""
    actual = hashlib.sha256(file.read_bytes()).hexdigest()
    if actual != expected:
        raise InstallError(
            f"{file.name} has sha256 {actual}, expected {expected}. Nothing was installed."
        )


def install_dependencies() -> None:
    """Install Detectron2's dependencies without changing torch, torchvision and numpy."""
    dependencies = [*DEPENDENCIES]
    # Another OpenCV distribution would have the same files.
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
    """The version of a distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def pip(command: str, *arguments: str) -> None:
    run(sys.executable, "-m", "pip", command, "--quiet", *arguments)


def run(*command: str) -> None:
    """Run a command and show its output; raise InstallError if it fails."""
    print("+", *command, flush=True)
    status = subprocess.run(command).returncode
    if status:
        raise InstallError(f"`{' '.join(command)}` exited with {status}.")


def parse_source(value: str) -> str:
    """`value` as pip needs it: the absolute path of a checkout, or a git URL."""
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
        description="Make detectron2 importable in this Python: keep an installed one, or install "
        f"the verified wheel {PROJECT}. torch and torchvision must be installed already.",
        epilog="Exit codes: 0 done, 1 failed, 2 refused input.",
    )
    parser.add_argument(
        "--source",
        metavar="PATH_OR_GIT_URL",
        type=parse_source,
        help="compile the official source instead, from a checkout or a git URL that you trust, "
        "because its setup.py is executed",
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

"""Commands that repair this environment: for its Python, its installer, its build of PyTorch."""

import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path

from .metadata import installed, version

CHECKOUT = Path(__file__).resolve().parents[2]  # or site-packages
SETUPTOOLS = "setuptools>=70.1,<81"  # 70.1 builds wheels unaided; 81 has no pkg_resources
DETECTRON2_SOURCE = "git+https://github.com/facebookresearch/detectron2.git"
DETECTRON2_NAMES = ("detectron2", "sal-detectron2")
OPENCV_NAMES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)

_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "hydra": "hydra-core",
    "pkg_resources": SETUPTOOLS,
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}


def install(*arguments: str) -> str:
    """The command that installs; arguments are quoted for a shell."""
    return shlex.join([*_tool("install"), *arguments])


def uninstall(*names: str) -> str:
    return shlex.join([*_tool("uninstall"), *names])


def _tool(command: str) -> list[str]:
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        return ["uv", "pip", command, "--python", sys.executable]
    return [sys.executable, "-m", "pip", command, *(["-y"] if command == "uninstall" else [])]


def _instead_of(names: tuple[str, ...], command: str) -> str:
    """Uninstall those of ``names`` that are installed, then run ``command``."""
    here = [name for name in names if installed(name)]
    return f"{uninstall(*here)} && {command}" if here else command


def matching_torchvision(torch: str) -> str | None:
    """The release of torchvision for a release of torch: 0.(N+15).P for 2.N.P, else None."""
    release = re.fullmatch(r"2\.(\d+)\.(\d+)(\+.*)?", torch)
    return f"0.{int(release[1]) + 15}.{release[2]}" if release else None


def install_torch() -> str:
    """Both again from the index, without a newer setuptools, which torch alone would install."""
    fresh = install("torch", "torchvision", SETUPTOOLS)
    return _instead_of(("torch", "torchvision"), fresh)


def install_torchvision() -> str:
    """The torchvision of the installed torch, which is kept.

    ``--no-deps`` keeps pip from changing torch, ``--force-reinstall`` replaces another build of the
    same version. A torch with a local version (2.13.0+cpu) comes from PyTorch's own index, which
    has the torchvision for it. The plain index has another build, so both are installed from there.
    """
    torch = version("torch")
    release = matching_torchvision(torch) if torch else None
    if release is None:
        return install_torch()
    build = torch.partition("+")[2]
    if not re.fullmatch(r"cpu|xpu|cu\d+|rocm[\d.]+", build):
        return install("--force-reinstall", "--no-deps", f"torchvision=={release}")
    return (
        f"{install_torch()}\n"
        f"# or, to keep the {build} build of torch, the same build of torchvision {release} from "
        "where torch came from (pytorch.org, Get Started)"
    )


def install_detectron2(*, compiled: bool = False) -> str:
    """Detectron2 instead of the installed one, if any.

    Args:
        compiled: from the official source, with its compiled part for this Python. Without a
            checkout of resnest-d2 it is always from there.
    """
    installer = CHECKOUT / "tools" / "install_detectron2.py"
    if installer.is_file():
        source = ["--source", DETECTRON2_SOURCE] if compiled else []
        fresh = shlex.join([sys.executable, str(installer), *source])
    else:
        fresh = install("--no-build-isolation", DETECTRON2_SOURCE)
    return _instead_of(DETECTRON2_NAMES, fresh)


def for_import(error: str, distribution: str | None = None) -> str:
    """The remedy for a failed import.

    Args:
        error: type and text of the exception.
        distribution: what to reinstall if the error is not known; None: "" is returned.
    """
    missing = re.search(r"No module named '([\w.]+)'", error)
    if missing:
        module = missing[1].partition(".")[0]
        own = {
            "detectron2": install_detectron2,
            "torch": install_torch,
            "torchvision": install_torchvision,
        }
        if module in own:
            return own[module]()
        name = _DISTRIBUTIONS.get(module, module.replace("_", "-"))
        # Metadata without the module: the installation has lost files.
        broken = installed(re.split("[<>=]", name)[0])
        return install(*(["--force-reinstall", "--no-deps"] if broken else []), name)
    if "torchvision::" in error or "partially initialized module 'torchvision'" in error:
        return install_torchvision()
    if "libGL" in error or "libgthread" in error:  # OpenCV with windows, on a machine without
        return _instead_of(OPENCV_NAMES, install("opencv-python-headless"))
    if re.search(r"compiled using NumPy 1|_ARRAY_API|numpy\.dtype size changed|multiarray", error):
        if distribution:
            return install("--force-reinstall", "--no-deps", "--no-cache-dir", distribution)
        return install("numpy<2")
    if re.search(r"'PIL\.Image' has no attribute|module 'numpy' has no attribute", error):
        return install_detectron2()  # it is older than the installed Pillow or numpy
    return install("--force-reinstall", "--no-deps", distribution) if distribution else ""

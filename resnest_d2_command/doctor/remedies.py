"""Commands that mend this very environment: its Python, its installer, its build of PyTorch."""

import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path

from .metadata import installed, version

__all__ = [
    "DETECTRON2_NAMES",
    "OPENCV_NAMES",
    "SETUPTOOLS",
    "for_import",
    "install",
    "install_detectron2",
    "install_torch",
    "install_torchvision",
    "matching_torchvision",
    "uninstall",
]

SETUPTOOLS = "setuptools>=70.1,<81"  # 70.1 builds wheels unaided; later ones lost pkg_resources
DETECTRON2_SOURCE = "git+https://github.com/facebookresearch/detectron2.git"
DETECTRON2_NAMES = ("detectron2", "sal-detectron2")
OPENCV_NAMES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_INSTALLER = Path(__file__).resolve().parents[1] / "tools" / "install_detectron2.py"

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


def matching_torchvision(torch: str) -> str | None:
    """The release of torchvision for a release of torch: 0.(N+15).P for 2.N.P, None elsewhere."""
    release = re.fullmatch(r"2\.(\d+)\.(\d+)(\+.*)?", torch)
    return f"0.{int(release[1]) + 15}.{release[2]}" if release else None


def install_torch() -> str:
    """Both anew from the index, and no newer setuptools, which torch alone would bring."""
    here = [name for name in ("torch", "torchvision") if installed(name)]
    fresh = install("torch", "torchvision", SETUPTOOLS)
    return f"{uninstall(*here)} && {fresh}" if here else fresh


def install_torchvision() -> str:
    """The torchvision of the installed torch, which stays.

    ``--no-deps`` keeps pip from touching torch, ``--force-reinstall`` replaces another build of the
    same version. A torch with a local version (2.13.0+cpu) came from PyTorch's own index, where
    torchvision's build for it is; the plain index has another, so from there both come anew.
    """
    torch = version("torch")
    release = matching_torchvision(torch) if torch else None
    if release is None:
        return install_torch()
    plain = ["--force-reinstall", "--no-deps", f"torchvision=={release}"]
    build = torch.partition("+")[2]
    if not re.fullmatch(r"cpu|xpu|cu\d+|rocm[\d.]+", build):
        return install(*plain)
    return (
        f"{install_torch()}\n"
        f"# or, to keep the {build} build of torch, the same build of torchvision {release} from "
        "where torch came from (pytorch.org, Get Started)"
    )


def install_detectron2(*, compiled: bool = False) -> str:
    """Detectron2 in place of the one that is there, if any.

    Args:
        compiled: from the official source, so that its compiled part fits this Python. Without a
            checkout of resnest-d2 it is always so.
    """
    here = [name for name in DETECTRON2_NAMES if installed(name)]
    if _INSTALLER.is_file():
        source = ["--source", DETECTRON2_SOURCE] if compiled else []
        fresh = shlex.join([sys.executable, str(_INSTALLER), *source])
    else:
        fresh = install("--no-build-isolation", DETECTRON2_SOURCE)
    return f"{uninstall(*here)} && {fresh}" if here else fresh


def for_import(error: str, distribution: str | None = None) -> str:
    """The remedy for a failed import.

    Args:
        error: the exception's type and text.
        distribution: what to reinstall where the error tells nothing more; None is nothing.
    """
    missing = re.search(r"No module named '([\w.]+)'", error)
    if missing:
        module = missing[1].partition(".")[0]
        if module == "detectron2":
            return install_detectron2()
        if module in ("torch", "torchvision"):
            return install_torch() if module == "torch" else install_torchvision()
        name = _DISTRIBUTIONS.get(module, module.replace("_", "-"))
        # Metadata without the module is an installation that lost files.
        broken = installed(re.split("[<>=]", name)[0])
        return install(*(["--force-reinstall", "--no-deps"] if broken else []), name)
    if "torchvision::" in error or "partially initialized module 'torchvision'" in error:
        return install_torchvision()
    if "libGL" in error or "libgthread" in error:  # OpenCV's windows, on a machine without any
        here = [name for name in OPENCV_NAMES if installed(name)]
        return f"{uninstall(*here)} && {install('opencv-python-headless')}"
    if re.search(r"compiled using NumPy 1|_ARRAY_API|numpy\.dtype size changed|multiarray", error):
        if distribution:
            return install("--force-reinstall", "--no-deps", "--no-cache-dir", distribution)
        return install("numpy<2")
    if re.search(r"'PIL\.Image' has no attribute|module 'numpy' has no attribute", error):
        return install_detectron2()  # older than the Pillow or numpy beside it
    return install("--force-reinstall", "--no-deps", distribution) if distribution else ""

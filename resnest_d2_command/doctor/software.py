"""What is installed: versions, builds and devices, from metadata and from what the probes found."""

from pathlib import Path

from . import remedies
from .children import Outcome
from .findings import OK, PROBLEM, WARNING, Check
from .machine import gib
from .metadata import OURS, Requirement, installed, providers, requirements, satisfies, version

__all__ = ["check_software", "steps"]

VERSIONS = "Versions"
DEVICES = "Devices"
OPERATORS = "PyTorch and operators"
DETECTRON2 = "Detectron2"

_MODULES = {  # of a distribution, where the name differs or the compiled part is what matters
    "opencv": "cv2",
    "pillow": "PIL",
    "pycocotools": "pycocotools.mask",
    "pyyaml": "yaml",
    "setuptools": "pkg_resources",
}
_OWN_STEPS = ("torch", "torchvision")
_BESIDE = (  # Detectron2's, which our metadata leaves to it
    Requirement("opencv", ""),
    Requirement("setuptools", ""),
)
_BASIC = (
    *("torch", "torchvision", "fvcore", "iopath", "numpy", "pillow", "pycocotools", "hotcoco"),
    "tensorboard",
)


def _required() -> list[Requirement]:
    ours = requirements(OURS) or [Requirement(name, "") for name in _BASIC]
    first = {name: place for place, name in enumerate(_BASIC)}
    return [
        *sorted(ours, key=lambda requirement: first.get(requirement.name, len(first))),
        *_BESIDE,
    ]


def steps() -> list[str]:
    """The probes to run, in this order."""
    names = [name for name, _ in _required() if name not in _OWN_STEPS]
    return [
        "import numpy",
        "torch",
        "convolution",
        "devices",
        "numpy",
        "torchvision",
        "operators",
        *(f"import {_module(name)}" for name in names if name != "numpy"),
        "detectron2 files",
        "detectron2",
        "detectron2._C",
        "detectron2.model_zoo",
        "resnest_d2",
        "weights",
        "training step",
    ]


def _module(name: str) -> str:
    return _MODULES.get(name, name.replace("-", "_"))


def check_software(outcomes: dict[str, Outcome]) -> list[Check]:
    return [
        *_versions(outcomes),
        *_devices(outcomes),
        *_operators(outcomes),
        *_detectron2(outcomes),
        *_ours(outcomes),
    ]


def untried(group: str, name: str, outcome: Outcome) -> Check:
    needed = outcome.needs.removeprefix("import ").removesuffix(" files")
    return Check(
        group, name, WARNING, f"not tried: {needed} does not work", f"# mend {needed} first"
    )


def _versions(outcomes: dict[str, Outcome]) -> list[Check]:
    checks = []
    have = version(OURS)
    folder = outcomes["resnest_d2"].facts.get("folder") or Path(__file__).resolve().parents[1]
    if have:
        checks.append(Check(VERSIONS, OURS, OK, f"{have}, {folder}"))
    else:
        checkout = Path(__file__).resolve().parents[1]
        remedy = (
            remedies.install("--no-build-isolation", "-e", str(checkout))
            if (checkout / "setup.py").is_file()
            else remedies.install(OURS)
        )
        found = f"on the path ({folder}), but not installed: its requirements are not known"
        checks.append(Check(VERSIONS, OURS, WARNING, found, remedy))
    required = _required()
    if satisfies("1", ">=1") is None:
        found = "not installed: versions are shown, not compared"
        remedy = remedies.install("packaging")
        checks.append(Check(VERSIONS, "packaging", WARNING, found, remedy))
    for requirement in required:
        if requirement.name == "opencv":
            checks.append(_opencv(outcomes["import cv2"]))
        elif requirement.name == "setuptools":
            checks.append(Check(VERSIONS, "setuptools", OK, version("setuptools") or "none"))
        else:
            step = requirement.name
            step = step if step in _OWN_STEPS else f"import {_module(step)}"
            checks.append(_distribution(requirement, outcomes[step]))
    return checks


def _distribution(requirement: Requirement, outcome: Outcome) -> Check:
    name, specifier = requirement
    have = version(name)
    wanted = f"{name}{specifier}"
    if have is None and not outcome.worked:
        missing = (
            remedies.install(wanted)
            if name not in _OWN_STEPS
            else remedies.for_import(f"No module named '{name}'")
        )
        return Check(VERSIONS, name, PROBLEM, "not installed", missing)
    found = have or "imports, without metadata"
    if specifier:
        found += f" (needs {specifier})"
    if have and specifier and satisfies(have, specifier) is False:
        remedy = remedies.install(wanted)
        if name in _OWN_STEPS:
            remedy = remedies.install_torch()
        return Check(VERSIONS, name, PROBLEM, found, remedy)
    if outcome.needs:
        return untried(VERSIONS, name, outcome)
    if outcome.error:
        remedy = remedies.for_import(outcome.error, None if name in _OWN_STEPS else name)
        if name in _OWN_STEPS and not remedy:
            remedy = getattr(remedies, f"install_{name}")()
        return Check(VERSIONS, name, PROBLEM, f"{found} does not import: {outcome.error}", remedy)
    if name in _OWN_STEPS:
        found = found.replace(have or "", outcome.facts["version"], 1) if have else found
    return Check(VERSIONS, name, OK, found)


def _opencv(outcome: Outcome) -> Check:
    here = [name for name in remedies.OPENCV_NAMES if installed(name)]
    found = ", ".join(f"{name} {version(name)}" for name in here) or "not installed"
    if len(here) > 1:
        found += ": they overwrite each other's files"
        remedy = f"{remedies.uninstall(*here)} && {remedies.install('opencv-python-headless')}"
        return Check(VERSIONS, "opencv", WARNING, found, remedy)
    if outcome.worked:
        return Check(VERSIONS, "opencv", OK, found if here else "imports, without metadata")
    remedy = remedies.for_import(outcome.error, here[0] if here else None)
    if here:
        found += f" does not import: {outcome.error}"
    return Check(VERSIONS, "opencv", PROBLEM, f"{found}; Detectron2 draws with it", remedy)


def _devices(outcomes: dict[str, Outcome]) -> list[Check]:
    outcome, torch = outcomes["devices"], outcomes["torch"]
    driver = _driver()
    if outcome.needs:
        return [untried(DEVICES, "GPU", outcome)]
    if outcome.error:
        remedy = (
            "# the driver, or a PyTorch with this GPU's kernels:\nnvidia-smi\n"
            f"{remedies.install_torch()}\n# without the GPU:\nexport CUDA_VISIBLE_DEVICES="
        )
        return [Check(DEVICES, "GPU", PROBLEM, outcome.error, remedy)]
    facts = outcome.facts
    checks = []
    for index, gpu in enumerate(facts["gpus"]):
        found = f"{gpu['name']}, {gib(gpu['bytes'])}, bf16 {'yes' if gpu['bf16'] else 'no'}"
        checks.append(Check(DEVICES, f"GPU {index}", OK, found))
    if checks:
        found = f"driver {driver or 'of unknown version'}, NCCL {facts['nccl'] or 'none'}"
        checks.append(Check(DEVICES, "GPU software", OK, found))
    elif driver and torch.facts["cuda"]:
        found = (
            f"driver {driver} is here, but PyTorch (built for CUDA {torch.facts['cuda']}) finds no "
            "GPU: an older driver than that CUDA needs, or CUDA_VISIBLE_DEVICES hides it"
        )
        remedy = (
            "# see the driver's own CUDA version, then choose PyTorch's build for it:\nnvidia-smi"
        )
        checks.append(Check(DEVICES, "GPU", WARNING, found, remedy))
    elif driver:
        found = (
            f"driver {driver} is here, but PyTorch {torch.facts['version']} is built without CUDA"
        )
        checks.append(Check(DEVICES, "GPU", WARNING, found, remedies.install_torch()))
    elif facts["mps"]:
        found = "Apple's (MPS); Detectron2 does not support it, models run on the CPU"
        checks.append(Check(DEVICES, "GPU", OK, found))
    else:
        checks.append(Check(DEVICES, "GPU", OK, "none: models run on the CPU"))
    if not facts["gloo"]:
        found = "this PyTorch has no Gloo: no several processes on the CPU"
        checks.append(Check(DEVICES, "Gloo", WARNING, found, remedies.install_torch()))
    return checks


def _driver() -> str:
    """The NVIDIA driver's version, "" where there is none."""
    file = Path("/proc/driver/nvidia/version")
    if not file.is_file():
        return ""
    words = file.read_text().split()
    return next((word for word in words if word[0].isdigit() and "." in word), "")


def _operators(outcomes: dict[str, Outcome]) -> list[Check]:
    checks = []
    torch, pair = outcomes["torch"], _pairing(outcomes)
    if torch.worked:
        build = torch.facts["cuda"] and f"CUDA {torch.facts['cuda']}"
        build = build or (torch.facts["hip"] and f"ROCm {torch.facts['hip']}") or "CPU"
        checks.append(Check(OPERATORS, "PyTorch's build", OK, f"{build}, {torch.facts['version']}"))
    outcome = outcomes["convolution"]
    if outcome.needs:
        checks.append(untried(OPERATORS, "convolution", outcome))
    elif outcome.error:
        remedy = remedies.install_torch()
        checks.append(Check(OPERATORS, "convolution", PROBLEM, outcome.error, remedy))
    else:
        facts = outcome.facts
        found = f"ran on the CPU with {facts['capability']} kernels, {facts['threads']} threads"
        checks.append(Check(OPERATORS, "convolution", OK, found))
    outcome = outcomes["numpy"]
    if outcome.needs:
        checks.append(untried(OPERATORS, "numpy and torch", outcome))
    elif outcome.error:
        found = f"{outcome.error}: this torch was built for numpy 1"
        remedy = remedies.install("numpy<2")
        checks.append(Check(OPERATORS, "numpy and torch", PROBLEM, found, remedy))
    else:
        checks.append(Check(OPERATORS, "numpy and torch", OK, "exchange arrays"))
    return [*checks, *pair, _torchvision_operators(outcomes)]


def _pairing(outcomes: dict[str, Outcome]) -> list[Check]:
    """Whether torchvision is the one that was released for this torch."""
    torch, vision = version("torch"), version("torchvision")
    right = remedies.matching_torchvision(torch) if torch else None
    if not (torch and vision and right):
        return []
    name, found = "torchvision's fit", f"torch {torch}, torchvision {vision}"
    minor = right.rpartition(".")[0]
    if vision.startswith(f"{minor}."):
        return [Check(OPERATORS, name, OK, found)]
    found += f": torch {torch} goes with torchvision {minor}"
    status = WARNING if outcomes["operators"].worked else PROBLEM
    return [Check(OPERATORS, name, status, found, remedies.install_torchvision())]


def _torchvision_operators(outcomes: dict[str, Outcome]) -> Check:
    name, outcome, vision = "operators", outcomes["operators"], outcomes["torchvision"]
    if outcome.worked:
        return Check(OPERATORS, name, OK, f"torchvision's {', '.join(outcome.facts['ran'])} ran")
    if vision.needs or (vision.error and version("torchvision") is None):
        return untried(OPERATORS, name, outcome)
    found = f"torchvision's do not load: {vision.error or outcome.error}"
    return Check(OPERATORS, name, PROBLEM, found, remedies.install_torchvision())


def _detectron2(outcomes: dict[str, Outcome]) -> list[Check]:
    checks = []
    outcome = outcomes["import pkg_resources"]
    if outcome.worked:
        checks.append(Check(DETECTRON2, "pkg_resources", OK, "imports"))
    else:
        have = version("setuptools")
        newest = have and satisfies(have, "<81") is False
        found = (
            f"setuptools {have} has no pkg_resources, which detectron2.model_zoo imports; "
            "resnest-d2's own commands do without"
            if newest
            else f"{outcome.error}; detectron2.model_zoo imports it"
        )
        force = [] if newest or not have else ["--force-reinstall"]
        remedy = remedies.install(*force, remedies.SETUPTOOLS)
        checks.append(Check(DETECTRON2, "pkg_resources", PROBLEM, found, remedy))

    files, outcome = outcomes["detectron2 files"], outcomes["detectron2"]
    folder = files.facts.get("folder", "")
    if files.error or not files.facts["package"]:
        found = f"{folder} is a folder of that name, not the package" if folder else "not installed"
        checks.append(
            Check(DETECTRON2, "detectron2", PROBLEM, found, remedies.install_detectron2())
        )
        return checks
    owners = [name for name in remedies.DETECTRON2_NAMES if installed(name)]
    source = ", ".join(f"{name} {version(name)}" for name in owners) or "without metadata"
    if files.facts["fork"]:
        found = (
            f"{folder} is a fork with its own MODEL.RESNETS.RADIX, such as the original plugin's: "
            "resnest-d2 adds that key to the official Detectron2"
        )
        checks.append(
            Check(DETECTRON2, "detectron2", PROBLEM, found, remedies.install_detectron2())
        )
    elif outcome.needs:
        checks.append(untried(DETECTRON2, "detectron2", outcome))
    elif outcome.error:
        remedy = remedies.for_import(outcome.error) or remedies.install_detectron2()
        checks.append(Check(DETECTRON2, "detectron2", PROBLEM, outcome.error, remedy))
    else:
        found = f"{outcome.facts['version']} ({source}), {folder}"
        checks.append(Check(DETECTRON2, "detectron2", OK, found))
    if len(providers("detectron2")) > 1 and len(owners) > 1:
        found = f"{' and '.join(owners)} are both installed, and overwrite each other's files"
        remedy = remedies.install_detectron2()
        checks.append(Check(DETECTRON2, "distributions", WARNING, found, remedy))
    return [*checks, _compiled(outcomes["detectron2._C"]), _model_zoo(outcomes)]


def _compiled(outcome: Outcome) -> Check:
    if outcome.needs:
        return untried(DETECTRON2, "detectron2._C", outcome)
    if outcome.worked:
        return Check(DETECTRON2, "detectron2._C", OK, "loads")
    reason = outcome.error
    if "cannot import name" in reason or "No module named" in reason:
        reason = "not built for this Python"
    found = (
        f"does not load ({reason}). Missing are Detectron2's own deformable convolution, rotated "
        "boxes and fast COCOeval; resnest-d2's recipes need none of them"
    )
    command = remedies.install_detectron2(compiled=True)
    remedy = f"# only if you need them; compiles for minutes:\n{command}"
    return Check(DETECTRON2, "detectron2._C", WARNING, found, remedy)


def _model_zoo(outcomes: dict[str, Outcome]) -> Check:
    outcome, name = outcomes["detectron2.model_zoo"], "detectron2.model_zoo"
    if outcome.needs:
        return untried(DETECTRON2, name, outcome)
    if outcome.error:
        remedy = remedies.for_import(outcome.error) or remedies.install_detectron2()
        return Check(DETECTRON2, name, PROBLEM, outcome.error, remedy)
    return Check(DETECTRON2, name, OK, "imports and finds its configs")


def _ours(outcomes: dict[str, Outcome]) -> list[Check]:
    checks = []
    for step, found in (("resnest_d2", "imports"), ("training step", "a ResNeSt-14 learns")):
        outcome = outcomes[step]
        if outcome.needs:
            checks.append(untried("resnest-d2", step, outcome))
        elif outcome.error:
            remedy = remedies.for_import(outcome.error)
            if not remedy and step == "resnest_d2":
                remedy = remedies.install("--force-reinstall", "--no-deps", OURS)
            remedy = remedy or "# please report this with the output of:\nresnest-d2 doctor --json"
            checks.append(Check("resnest-d2", step, PROBLEM, outcome.error, remedy))
        else:
            checks.append(Check("resnest-d2", step, OK, found))
    return checks

"""Checks the installed software by its metadata and by the results of the probes."""

from pathlib import Path

from . import remedies
from .children import Outcome
from .findings import OK, PROBLEM, WARNING, Check, gib
from .metadata import OURS, Requirement, installed, providers, requirements, satisfies, version

VERSIONS = "Versions"
DEVICES = "Devices"
OPERATORS = "PyTorch and operators"
DETECTRON2 = "Detectron2"

Outcomes = dict[str, Outcome]

_MODULES = {  # of a distribution, where the name differs or the compiled part is what matters
    "opencv": "cv2",
    "pillow": "PIL",
    "pycocotools": "pycocotools.mask",
    "pyyaml": "yaml",
    "setuptools": "pkg_resources",
}
_INSTALL = {  # distributions with a probe of their own name
    "torch": remedies.install_torch,
    "torchvision": remedies.install_torchvision,
}
_FIRST = (
    *("torch", "torchvision", "fvcore", "iopath", "numpy", "pillow", "pycocotools", "hotcoco"),
    "tensorboard",
)


def _required() -> list[Requirement]:
    ours = requirements(OURS) or [Requirement(name) for name in _FIRST]
    order = {name: place for place, name in enumerate(_FIRST)}
    ours.sort(key=lambda requirement: order.get(requirement.name, len(order)))
    # Detectron2 needs these two, which are not in our metadata.
    return [*ours, Requirement("opencv"), Requirement("setuptools")]


def _step(distribution: str) -> str:
    if distribution in _INSTALL:
        return distribution
    return f"import {_MODULES.get(distribution, distribution.replace('-', '_'))}"


def steps() -> list[str]:
    """The probes to run, in this order."""
    first = ["import numpy", "torch", "convolution", "devices", "numpy", "torchvision", "operators"]
    imports = [_step(name) for name, _ in _required()]
    last = ["detectron2 files", "detectron2", "detectron2._C", "detectron2.model_zoo"]
    last += ["resnest_d2", "weights", "training step"]
    return list(dict.fromkeys([*first, *imports, *last]))


def check_software(outcomes: Outcomes) -> list[Check]:
    return [
        *_versions(outcomes),
        *_devices(outcomes),
        *_operators(outcomes),
        *_detectron2(outcomes),
        *_ours(outcomes),
    ]


def _check(
    group: str,
    name: str,
    outcome: Outcome,
    found: str,
    remedy: str,
    *,
    failed: str = "",
    status: str = PROBLEM,
) -> Check:
    """The check of one probe.

    Args:
        found: where it worked.
        remedy, status: where it failed.
        failed: what to show where it failed; by default the error.
    """
    if outcome.needs:
        cause = outcome.needs.removeprefix("import ").removesuffix(" files")
        found = f"not tried: {cause} does not work"
        return Check(group, name, WARNING, found, f"# repair {cause} first")
    if outcome.error:
        return Check(group, name, status, failed or outcome.error, remedy)
    return Check(group, name, OK, found)


def _versions(outcomes: Outcomes) -> list[Check]:
    folder = outcomes["resnest_d2"].facts.get("folder") or remedies.CHECKOUT / "resnest_d2"
    if have := version(OURS):
        checks = [Check(VERSIONS, OURS, OK, f"{have}, {folder}")]
    else:
        checkout = ("--no-build-isolation", "-e", str(remedies.CHECKOUT))
        has_setup = (remedies.CHECKOUT / "setup.py").is_file()
        remedy = remedies.install(*(checkout if has_setup else (OURS,)))
        found = f"importable ({folder}), but not installed: its requirements are unknown"
        checks = [Check(VERSIONS, OURS, WARNING, found, remedy)]
    for requirement in _required():
        outcome = outcomes[_step(requirement.name)]
        if requirement.name == "opencv":
            checks.append(_opencv(outcome))
        elif requirement.name == "setuptools":  # for its module, see Detectron2
            checks.append(Check(VERSIONS, "setuptools", OK, version("setuptools") or "none"))
        else:
            checks.append(_distribution(*requirement, outcome))
    return checks


def _distribution(name: str, specifier: str, outcome: Outcome) -> Check:
    have, own = version(name), _INSTALL.get(name)
    fresh = own() if own else remedies.install(f"{name}{specifier}")
    if have is None and not outcome.worked:
        return Check(VERSIONS, name, PROBLEM, "not installed", fresh)
    found = (have and outcome.facts.get("version")) or have or "imports, without metadata"
    found += f" (needs {specifier})" if specifier else ""
    if have and specifier and satisfies(have, specifier) is False:
        return Check(VERSIONS, name, PROBLEM, found, fresh)
    remedy = remedies.for_import(outcome.error, None if own else name) or fresh
    failed = f"{found} does not import: {outcome.error}"
    return _check(VERSIONS, name, outcome, found, remedy, failed=failed)


def _opencv(outcome: Outcome) -> Check:
    here = [name for name in remedies.OPENCV_NAMES if installed(name)]
    found = ", ".join(f"{name} {version(name)}" for name in here)
    if len(here) > 1:
        found += ": they overwrite each other's files"
        remedy = f"{remedies.uninstall(*here)} && {remedies.install('opencv-python-headless')}"
        return Check(VERSIONS, "opencv", WARNING, found, remedy)
    remedy = remedies.for_import(outcome.error, here[0] if here else None)
    failed = f"{found} does not import: {outcome.error}" if here else outcome.error
    failed += "; Detectron2 draws with it"
    found = found or "imports, without metadata"
    return _check(VERSIONS, "opencv", outcome, found, remedy, failed=failed)


def _devices(outcomes: Outcomes) -> list[Check]:
    outcome, facts, torch = outcomes["devices"], outcomes["devices"].facts, outcomes["torch"].facts
    remedy = (
        "# the driver, or a PyTorch with kernels for this GPU:\nnvidia-smi\n"
        f"{remedies.install_torch()}\n# without the GPU:\nexport CUDA_VISIBLE_DEVICES="
    )
    failed = _check(DEVICES, "GPU", outcome, "", remedy)
    if failed.status != OK:
        return [failed]
    driver = _driver()
    checks = []
    for index, gpu in enumerate(facts["gpus"]):
        found = f"{gpu['name']}, {gib(gpu['bytes'])}, bf16 {'yes' if gpu['bf16'] else 'no'}"
        checks.append(Check(DEVICES, f"GPU {index}", OK, found))
    if checks:
        found = f"driver {driver or 'of unknown version'}, NCCL {facts['nccl'] or 'none'}"
        checks.append(Check(DEVICES, "GPU software", OK, found))
    elif driver and torch["cuda"]:
        found = (
            f"driver {driver} is here, but PyTorch (built for CUDA {torch['cuda']}) finds no GPU: "
            "the driver may be too old for that CUDA, or CUDA_VISIBLE_DEVICES may hide the GPU"
        )
        remedy = "# choose a build of PyTorch for the CUDA version of the driver:\nnvidia-smi"
        checks.append(Check(DEVICES, "GPU", WARNING, found, remedy))
    elif driver:
        found = f"driver {driver} is here, but PyTorch {torch['version']} is built without CUDA"
        checks.append(Check(DEVICES, "GPU", WARNING, found, remedies.install_torch()))
    else:
        mps = "Apple's (MPS), which Detectron2 does not support" if facts["mps"] else "none"
        checks.append(Check(DEVICES, "GPU", OK, f"{mps}: models run on the CPU"))
    if not facts["gloo"]:
        found = "this PyTorch has no Gloo: several processes on the CPU are impossible"
        checks.append(Check(DEVICES, "Gloo", WARNING, found, remedies.install_torch()))
    return checks


def _driver() -> str:
    """The version of the NVIDIA driver, "" where there is none."""
    file = Path("/proc/driver/nvidia/version")
    words = file.read_text().split() if file.is_file() else ()
    return next((word for word in words if word[0].isdigit() and "." in word), "")


def _operators(outcomes: Outcomes) -> list[Check]:
    checks = []
    torch, facts = outcomes["torch"].facts, outcomes["convolution"].facts
    if torch:
        build = (torch["cuda"] and f"CUDA {torch['cuda']}") or (
            torch["hip"] and f"ROCm {torch['hip']}"
        )
        found = f"{build or 'CPU'}, {torch['version']}"
        checks.append(Check(OPERATORS, "PyTorch's build", OK, found))
    found = f"ran on the CPU with {facts.get('capability')} kernels, {facts.get('threads')} threads"
    remedy = remedies.install_torch()
    checks.append(_check(OPERATORS, "convolution", outcomes["convolution"], found, remedy))
    outcome, remedy = outcomes["numpy"], remedies.install("numpy<2")
    failed = f"{outcome.error}: this torch was built for numpy 1"
    name, found = "numpy and torch", "exchange arrays"
    checks.append(_check(OPERATORS, name, outcome, found, remedy, failed=failed))
    outcome, vision = outcomes["operators"], outcomes["torchvision"]
    checks += _torchvision_version(outcome)
    if vision.error and installed("torchvision"):  # the operators are why it does not import
        outcome = vision
    found = f"torchvision's {', '.join(outcome.facts.get('ran', ()))} ran"
    failed, remedy = f"torchvision's do not load: {outcome.error}", remedies.install_torchvision()
    checks.append(_check(OPERATORS, "operators", outcome, found, remedy, failed=failed))
    return checks


def _torchvision_version(operators: Outcome) -> list[Check]:
    """Whether the installed torchvision was released for the installed torch."""
    torch, vision = version("torch"), version("torchvision")
    right = remedies.matching_torchvision(torch) if torch else None
    if not (vision and right):
        return []
    name, found = "torchvision's fit", f"torch {torch}, torchvision {vision}"
    minor = right.rpartition(".")[0]
    if vision.startswith(f"{minor}."):
        return [Check(OPERATORS, name, OK, found)]
    found += f": torch {torch} needs torchvision {minor}"
    status = WARNING if operators.worked else PROBLEM
    return [Check(OPERATORS, name, status, found, remedies.install_torchvision())]


def _detectron2(outcomes: Outcomes) -> list[Check]:
    outcome, have = outcomes["import pkg_resources"], version("setuptools")
    too_new = have and satisfies(have, "<81") is False
    failed = f"{outcome.error}; detectron2.model_zoo imports it"
    if too_new:
        failed = (
            f"setuptools {have} has no pkg_resources, which detectron2.model_zoo imports; "
            "the commands of resnest-d2 do not need it"
        )
    force = ["--force-reinstall"] if have and not too_new else []
    remedy = remedies.install(*force, remedies.SETUPTOOLS)
    checks = [_check(DETECTRON2, "pkg_resources", outcome, "imports", remedy, failed=failed)]

    files, outcome = outcomes["detectron2 files"], outcomes["detectron2"]
    folder, fresh = files.facts.get("folder", ""), remedies.install_detectron2()
    owners = [name for name in remedies.DETECTRON2_NAMES if installed(name)]
    if files.error or not files.facts["package"]:
        found = f"{folder} is a folder of that name, not the package" if folder else "not installed"
        return [*checks, Check(DETECTRON2, "detectron2", PROBLEM, found, fresh)]
    if files.facts["fork"]:
        found = (
            f"{folder} is a fork with its own MODEL.RESNETS.RADIX, such as the original plugin's: "
            "resnest-d2 adds that key to the official Detectron2"
        )
        checks.append(Check(DETECTRON2, "detectron2", PROBLEM, found, fresh))
    else:
        source = ", ".join(f"{name} {version(name)}" for name in owners) or "without metadata"
        found = f"{outcome.facts.get('version')} ({source}), {folder}"
        remedy = remedies.for_import(outcome.error) or fresh
        checks.append(_check(DETECTRON2, "detectron2", outcome, found, remedy))
    if len(providers("detectron2")) > 1 and len(owners) > 1:
        found = f"{' and '.join(owners)} are both installed, and overwrite each other's files"
        checks.append(Check(DETECTRON2, "distributions", WARNING, found, fresh))

    outcome = outcomes["detectron2._C"]
    reason = outcome.error
    if "cannot import name" in reason or "No module named" in reason:
        reason = "not built for this Python"
    failed = (
        f"does not load ({reason}). Missing are Detectron2's own deformable convolution, rotated "
        "boxes and fast COCOeval; no recipe of resnest-d2 needs them"
    )
    remedy = remedies.install_detectron2(compiled=True)
    remedy = f"# only if you need them; compiles for minutes:\n{remedy}"
    how = {"failed": failed, "status": WARNING}
    checks.append(_check(DETECTRON2, "detectron2._C", outcome, "loads", remedy, **how))

    outcome, name = outcomes["detectron2.model_zoo"], "detectron2.model_zoo"
    remedy = remedies.for_import(outcome.error) or fresh
    checks.append(_check(DETECTRON2, name, outcome, "imports and finds its configs", remedy))
    return checks


def _ours(outcomes: Outcomes) -> list[Check]:
    again = remedies.install("--force-reinstall", "--no-deps", OURS)
    report = "# please report this with the output of:\nresnest-d2 doctor --json"
    rows = (("resnest_d2", "imports", again), ("training step", "a ResNeSt-14 learns", report))
    return [
        _check(
            OURS, step, outcomes[step], found, remedies.for_import(outcomes[step].error) or remedy
        )
        for step, found, remedy in rows
    ]

"""The computer: what Python, the operating system and its limits let a training have."""

import os
import platform
import shlex
import shutil
import socket
import sys
import threading
from pathlib import Path

from .findings import OK, WARNING, Check

__all__ = ["check_machine", "gib"]

GROUP = "Computer"

_MEMORY = 4 << 30  # a small training on the CPU; a 50-layer one needs more
_SHARED = 1 << 30  # a worker's batch of eight images of 800×1333 pixels is 0.1 GiB
_DISK = 5 << 30  # a few checkpoints of a 50-layer detector, 0.4 GiB each
_FILES = 1024


def check_machine() -> list[Check]:
    return [
        _python(),
        Check(GROUP, "system", OK, f"{platform.platform()}, {platform.machine()}"),
        _cpu(),
        *_memory(),
        _disk(),
        *_open_files(),
        _host(),
        _threads(),
    ]


def gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size < 100 << 30 else f"{size / 2**30:.0f} GiB"


def _python() -> Check:
    found = f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}"
    return Check(GROUP, "Python", OK, found)  # pip and this very code refuse older ones than 3.10


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> Check:
    cores = _cores()
    found = f"{cores} core{'' if cores == 1 else 's'}"
    total = os.cpu_count() or cores
    if total != cores:
        found += f" of {total}"
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = (line.partition(":") for line in information.read_text().splitlines())
        values = {name.strip(): value.strip() for name, _, value in lines}
        flags = set(values.get("flags", values.get("Features", "")).split())
        fast = flags & {"avx512_bf16", "amx_bf16", "bf16"}
        found += (
            f", {values.get('model name', platform.machine())}"
            f", AVX-512 {_yes('avx512f' in flags)}, AMX {_yes('amx_tile' in flags)}"
            f", bf16 {'fast' if fast else 'slower than fp32'}"
        )
    return Check(GROUP, "CPU", OK, found)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _memory() -> list[Check]:
    checks = []
    file = Path("/proc/meminfo")
    if file.is_file():
        lines = (line.split() for line in file.read_text().splitlines())
        values = {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if len(line) > 1}
        free, total = values.get("MemAvailable", 0), values["MemTotal"]
        limit = _read_number("/sys/fs/cgroup/memory.max")
        used = _read_number("/sys/fs/cgroup/memory.current")
        if limit and limit < total:  # a container's
            total, free = limit, min(free, limit - (used or 0))
        found = f"{gib(free)} available of {gib(total)}"
        if free < _MEMORY:
            remedy = (
                "# smaller images, and no processes that read ahead; at the end of a train command:"
                "\nINPUT.MIN_SIZE_TRAIN '(480,)' DATALOADER.NUM_WORKERS 0"
            )
            found += "; a small training takes about 4 GiB"
            checks.append(Check(GROUP, "memory", WARNING, found, remedy))
        else:
            checks.append(Check(GROUP, "memory", OK, found))
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        checks.append(Check(GROUP, "memory", OK, gib(total)))
    if Path("/dev/shm").is_dir():
        usage = shutil.disk_usage("/dev/shm")
        found = f"{gib(usage.free)} free of {gib(usage.total)}"
        if usage.free < _SHARED:
            remedy = (
                "# of a container, when it is started:\ndocker run --shm-size=8g …\n"
                "# elsewhere:\nsudo mount -o remount,size=8G /dev/shm\n"
                "# or at the end of a train command:\nDATALOADER.NUM_WORKERS 0"
            )
            found += "; data workers hand over their images there"
            checks.append(Check(GROUP, "/dev/shm", WARNING, found, remedy))
        else:
            checks.append(Check(GROUP, "/dev/shm", OK, found))
    return checks


def _read_number(file: str) -> int | None:
    try:
        return int(Path(file).read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


def _disk() -> Check:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    found = f"{gib(free)} free in {here}"
    if not os.access(here, os.W_OK):
        found += ", which cannot be written"
    if free >= _DISK and os.access(here, os.W_OK):
        return Check(GROUP, "disk", OK, found)
    remedy = "# at the end of a train command:\nOUTPUT_DIR /a/folder/with/space"
    return Check(GROUP, "disk", WARNING, f"{found}; runs write to output/ here", remedy)


def _open_files() -> list[Check]:
    try:
        import resource
    except ImportError:  # Windows
        return []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY or limit >= _FILES:
        found = "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit}"
        return [Check(GROUP, "open files", OK, found)]
    found = f"at most {limit}; data workers open many"
    return [Check(GROUP, "open files", WARNING, found, "ulimit -n 4096")]


def _host() -> Check:
    """Gloo and NCCL find this machine's address by its name."""
    name, answers = socket.gethostname(), []

    def ask() -> None:
        try:
            answers.append((socket.gethostbyname(name), ""))
        except OSError as error:
            answers.append(("", str(error)))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2)  # seconds; a name server that does not answer takes its time
    address, error = answers[0] if answers else ("", "no answer within 2 s")
    if address:
        return Check(GROUP, "host name", OK, f"{name} is {address}")
    return Check(
        GROUP,
        "host name",
        WARNING,
        f"{name} has no address ({error}): several processes may not find each other",
        f"echo {shlex.quote(f'127.0.0.1 {name}')} | sudo tee -a /etc/hosts\n"
        "# or, for processes of this machine alone:\nexport GLOO_SOCKET_IFNAME=lo",
    )


def _threads() -> Check:
    value, cores = os.environ.get("OMP_NUM_THREADS"), _cores()
    if value is None:
        return Check(GROUP, "OMP_NUM_THREADS", OK, f"not set: PyTorch uses {cores} cores")
    if value.isdigit() and 1 <= int(value) <= cores:
        return Check(GROUP, "OMP_NUM_THREADS", OK, value)
    found = f"{value}, with {cores} cores: threads wait for each other"
    return Check(GROUP, "OMP_NUM_THREADS", WARNING, found, f"export OMP_NUM_THREADS={cores}")

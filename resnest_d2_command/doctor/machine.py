"""Checks the computer: processor, memory, disk, host name."""

import os
import platform
import shlex
import shutil
import socket
import sys
import threading
from pathlib import Path

from .findings import OK, WARNING, Check, gib

GROUP = "Computer"

_MEMORY = 4 << 30  # a small training on the CPU
_SHARED = 1 << 30  # a worker's batch of eight images of 800 x 1333 pixels takes 0.1 GiB
_DISK = 5 << 30  # some checkpoints of a 50-layer detector, 0.4 GiB each


def check_machine() -> list[Check]:
    python = f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}"
    return [
        Check(GROUP, "Python", OK, python),
        Check(GROUP, "system", OK, f"{platform.platform()}, {platform.machine()}"),
        _cpu(),
        *_memory(),
        *_shared_memory(),
        _disk(),
        _host(),
        _threads(),
    ]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _colon_separated(file: str) -> dict[str, str]:
    """``name: value`` lines of a file of /proc; empty elsewhere than on Linux."""
    path = Path(file)
    lines = path.read_text().splitlines() if path.is_file() else []
    parts = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in parts}


def _cpu() -> Check:
    cores, total = _cores(), os.cpu_count()
    found = f"{cores} core{'' if cores == 1 else 's'}"
    if total != cores:
        found += f" of {total}"
    values = _colon_separated("/proc/cpuinfo")
    if values:
        flags = set(values.get("flags", values.get("Features", "")).split())
        fast = flags & {"avx512_bf16", "amx_bf16", "bf16"}
        found += (
            f", {values.get('model name', platform.machine())}"
            f", AVX-512 {'yes' if 'avx512f' in flags else 'no'}"
            f", AMX {'yes' if 'amx_tile' in flags else 'no'}"
            f", bf16 {'fast' if fast else 'slower than fp32'}"
        )
    return Check(GROUP, "CPU", OK, found)


def _memory() -> list[Check]:
    values = _colon_separated("/proc/meminfo")  # kB
    if "MemAvailable" not in values:
        return []
    free, total = (int(values[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
    limit, used = (_read_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit and limit < total:  # of a container
        total, free = limit, min(free, limit - (used or 0))
    found = f"{gib(free)} available of {gib(total)}"
    if free >= _MEMORY:
        return [Check(GROUP, "memory", OK, found)]
    remedy = (
        "# smaller images and no data workers; at the end of a train command:\n"
        "INPUT.MIN_SIZE_TRAIN '(480,)' DATALOADER.NUM_WORKERS 0"
    )
    return [Check(GROUP, "memory", WARNING, f"{found}; a small training takes 4 GiB", remedy)]


def _read_number(file: str) -> int | None:
    try:
        return int(Path(file).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _shared_memory() -> list[Check]:
    if not Path("/dev/shm").is_dir():
        return []
    usage = shutil.disk_usage("/dev/shm")
    found = f"{gib(usage.free)} free of {gib(usage.total)}"
    if usage.free >= _SHARED:
        return [Check(GROUP, "/dev/shm", OK, found)]
    remedy = (
        "# when starting a container:\ndocker run --shm-size=8g …\n"
        "# elsewhere:\nsudo mount -o remount,size=8G /dev/shm\n"
        "# or at the end of a train command:\nDATALOADER.NUM_WORKERS 0"
    )
    return [Check(GROUP, "/dev/shm", WARNING, f"{found}; data workers put images there", remedy)]


def _disk() -> Check:
    here = Path.cwd()
    free, writable = shutil.disk_usage(here).free, os.access(here, os.W_OK)
    found = f"{gib(free)} free in {here}" + ("" if writable else ", which is not writable")
    if free >= _DISK and writable:
        return Check(GROUP, "disk", OK, found)
    remedy = "# at the end of a train command:\nOUTPUT_DIR /a/folder/with/space"
    return Check(GROUP, "disk", WARNING, f"{found}; runs write to output/ here", remedy)


def _host() -> Check:
    """Gloo and NCCL find the address of this machine by its name."""
    name, answer = socket.gethostname(), {"error": "no answer within 2 s"}

    def ask() -> None:
        try:
            answer["address"] = socket.gethostbyname(name)
        except OSError as error:
            answer["error"] = str(error)

    asking = threading.Thread(target=ask, daemon=True)  # a name server may not answer
    asking.start()
    asking.join(2)  # seconds
    if "address" in answer:
        return Check(GROUP, "host name", OK, f"{name} is {answer['address']}")
    return Check(
        GROUP,
        "host name",
        WARNING,
        f"{name} has no address ({answer['error']}): several processes may not find each other",
        f"echo {shlex.quote(f'127.0.0.1 {name}')} | sudo tee -a /etc/hosts\n"
        "# or, for processes on this machine only:\nexport GLOO_SOCKET_IFNAME=lo",
    )


def _threads() -> Check:
    value, cores = os.environ.get("OMP_NUM_THREADS"), _cores()
    if value is None:
        return Check(GROUP, "OMP_NUM_THREADS", OK, f"not set: PyTorch uses {cores} cores")
    if value.isdigit() and 1 <= int(value) <= cores:
        return Check(GROUP, "OMP_NUM_THREADS", OK, value)
    found = f"{value}, with {cores} cores: threads wait for each other"
    return Check(GROUP, "OMP_NUM_THREADS", WARNING, found, f"export OMP_NUM_THREADS={cores}")

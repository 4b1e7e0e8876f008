"""A function of a test file, in several processes of one gloo group."""

import datetime
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.utils import comm

from resnest_d2.engine.launch.torchrun import leave_group

mp.set_forkserver_preload(["resnest_d2.engine"])  # imported once, not in every process


def run_in_processes(function: Callable, folder: Path, *args, world_size: int = 2) -> list:
    """Call ``function(rank, *args)`` in every process.

    Args:
        function: at the top level of its file, which each process loads anew by its path: test
            files are not importable by name.
        folder: an empty one, for the rendezvous and the results.
        args: what can be pickled, without the file that ``function`` is in.

    Returns:
        Each rank's result: tensors and plain containers.
    """
    spec = (function.__code__.co_filename, function.__name__)
    work = (*spec, args, str(folder), world_size, dict(os.environ))
    mp.start_processes(_work, work, nprocs=world_size, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]


def _work(
    rank: int,
    file: str,
    name: str,
    args: tuple,
    folder: str,
    world_size: int,
    environment: dict[str, str],
) -> None:
    os.environ.update(environment)  # the server's is that of its first call
    torch.set_num_threads(1)
    if os.path.exists("/sys/class/net/lo"):  # where the host's name has no address
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    init = f"file://{folder}/rendezvous"
    dist.init_process_group(
        "gloo",
        init_method=init,
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(minutes=2),  # a deadlock fails
    )
    try:
        comm.create_local_process_group(world_size)  # as Detectron2's launch does
        torch.save(getattr(module, name)(rank, *args), f"{folder}/{rank}.pt")
        dist.barrier()
    finally:
        leave_group()

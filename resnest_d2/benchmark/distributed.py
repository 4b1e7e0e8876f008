"""The parts of a training step on several processes of one machine."""

import json
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from .costs import count_params
from .latency import alternate
from .subjects import Subject, total_loss

_BUCKET_BYTES = 25 * 2**20  # of gradients, which DistributedDataParallel sends at once


@dataclass(frozen=True)
class ProcessTimes:
    """Training steps of processes that share a machine; one time per run, in milliseconds.

    Attributes:
        processes: how many, each on a GPU or on its share of the cores.
        gradient_bytes: of one process.
        alone_ms: steps of one process while the others wait.
        together_ms: steps of all, without exchanging gradients.
        synchronised_ms: steps of all, as in training.
        all_reduce_ms: only the exchange of the gradients.
    """

    processes: int
    gradient_bytes: int
    alone_ms: tuple[float, ...]
    together_ms: tuple[float, ...]
    synchronised_ms: tuple[float, ...]
    all_reduce_ms: tuple[float, ...]


def measure_processes(
    name: str = "resnest50",
    *,
    processes: int = 2,
    batch: int = 2,
    size: tuple[int, int] = (320, 416),
    device: str = "cpu",
    runs: int = 5,
    warmup: int = 1,
) -> ProcessTimes:
    """Time training steps of a backbone on several processes, the parts of a step in turn.

    Args:
        name: see :class:`.Subject`; not a whole detector.
        batch, size: number of images of each process and step, and their height and width.
        device: ``"cpu"``, or ``"cuda"`` for one GPU per process.
        runs, warmup: timed and untimed steps of each kind.

    Raises:
        ValueError: an invalid argument.
        torch.multiprocessing.ProcessRaisedException: a process failed; it has the error's text.
    """
    subject = Subject(name, training=True, device=device)
    if processes < 2 or subject.is_config:
        raise ValueError(
            f"a backbone is measured on two or more processes, got {name} on {processes}"
        )
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, processes, subject, (batch, size), (runs, warmup))
        multiprocessing.spawn(_measure_process, arguments, nprocs=processes)
        found = json.loads((Path(folder) / "times.json").read_text())
    gradient_bytes, times = found
    return ProcessTimes(processes, gradient_bytes, *map(tuple, times))


def _measure_process(rank: int, folder: str, processes: int, subject: Subject, inputs, runs):
    on_gpu = torch.device(subject.device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=processes,
    )
    torch.manual_seed(rank)
    network = subject.build().train()
    images = subject.inputs(*inputs)
    parallel = DistributedDataParallel(network, broadcast_buffers=False)
    gradients = torch.zeros(count_params(network), device=images.device)

    def step(model: nn.Module) -> None:
        total_loss(model(images)).backward()
        model.zero_grad()

    def alone():
        if rank == 0:
            step(network)

    def together():
        with parallel.no_sync():
            step(parallel)

    def exchange():
        for bucket in gradients.split(_BUCKET_BYTES // gradients.element_size()):
            dist.all_reduce(bucket)

    def between_barriers(call):
        dist.barrier()
        call()
        dist.barrier()  # the time is that of the slowest process

    kinds = (alone, together, partial(step, parallel), exchange)  # as in ProcessTimes
    times = alternate(
        [partial(between_barriers, kind) for kind in kinds], runs=runs[0], warmup=runs[1]
    )
    if rank == 0:
        found = gradients.numel() * gradients.element_size(), times
        (Path(folder) / "times.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()

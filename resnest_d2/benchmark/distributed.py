"""A training step on many processes: measured on few, expected on many."""

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from .costs import count_params
from .latency import alternate
from .subjects import Subject, total_loss

__all__ = [
    "BUCKET_BYTES",
    "Cluster",
    "ProcessTimes",
    "all_reduce_seconds",
    "expected_slowest",
    "latency_seconds",
    "measure_processes",
    "step_seconds",
]

BUCKET_BYTES = 25 * 2**20
"""Gradients that DistributedDataParallel sends at once."""


@dataclass(frozen=True)
class Cluster:
    """Nodes of GPUs and their links, in bytes a second in each direction.

    Attributes:
        gpu_link: of a GPU to the others of its node.
        node_link: of a node to the others, of all its GPUs together.
        gpus_per_node: in a node.
        hop_seconds: what a message takes from a GPU to another, whatever its size.
    """

    gpu_link: float
    node_link: float
    gpus_per_node: int = 8
    hop_seconds: float = 10e-6


def latency_seconds(gpus: int, cluster: Cluster) -> float:
    """Time to sum a few bytes over GPUs: 2 log2(n) hops, as in a tree."""
    return float(2 * np.log2(gpus) * cluster.hop_seconds)


def all_reduce_seconds(gradient_bytes: float, gpus: int, cluster: Cluster) -> float:
    """Time to sum gradients over GPUs: within the nodes, then between them.

    Each level moves 2 (n - 1) / n of the bytes over its slowest link, as a ring does, and each
    bucket takes :func:`latency_seconds`.

    Args:
        gradient_bytes: of one GPU; 4 a trained parameter.

    Raises:
        ValueError: GPUs that do not fill their nodes.
    """
    if gpus > cluster.gpus_per_node and gpus % cluster.gpus_per_node:
        raise ValueError(f"nodes have {cluster.gpus_per_node} GPUs, got {gpus}")
    nodes, inside = max(1, gpus // cluster.gpus_per_node), min(gpus, cluster.gpus_per_node)
    seconds = 2 * (inside - 1) / inside * gradient_bytes / cluster.gpu_link
    seconds += 2 * (nodes - 1) / nodes * gradient_bytes / cluster.node_link
    buckets = max(1, gradient_bytes / BUCKET_BYTES)
    return seconds + buckets * latency_seconds(gpus, cluster)


def step_seconds(
    compute: float,
    all_reduce: float,
    gradient_bytes: float,
    *,
    slowest: float = 1.0,
    waiting: float = 0.0,
) -> float:
    """Expected time of a step of data parallel training.

    A third of the computing is the forward pass. The backward pass hides the summing, but for the
    last bucket, which begins when the backward pass ends.

    Args:
        compute: seconds of a step of one GPU alone.
        all_reduce: seconds to sum the gradients, see :func:`all_reduce_seconds`.
        gradient_bytes: of one GPU.
        slowest: computing of the slowest GPU over that of the mean, see :func:`expected_slowest`.
        waiting: seconds of exchanges that nothing hides: two :func:`latency_seconds` a SyncBN.
    """
    forward, backward = slowest * compute / 3, slowest * compute * 2 / 3
    last = all_reduce * min(1.0, BUCKET_BYTES / gradient_bytes)
    return forward + max(backward, all_reduce - last) + last + waiting


def expected_slowest(costs: Sequence[float], gpus: int, images_per_gpu: int = 1) -> float:
    """Mean of the largest cost among GPUs over the mean cost: a step waits for the slowest.

    Args:
        costs: of images, any unit, such as their pixels; each GPU draws its images from them.
    """
    sums = np.zeros(1)
    for _ in range(images_per_gpu):
        sums = np.add.outer(sums, np.asarray(costs, dtype=np.float64)).ravel()
    sums.sort()
    below = (np.arange(len(sums) + 1) / len(sums)) ** gpus  # P(largest is among the first i)
    return float((sums * np.diff(below)).sum() / sums.mean())


@dataclass(frozen=True)
class ProcessTimes:
    """Training steps of processes that share a machine, in milliseconds; all are of one run.

    Attributes:
        processes: how many, each on a GPU or on its share of the cores.
        gradient_bytes: of one process.
        alone_ms: steps of one, the others waiting.
        together_ms: steps of all, without exchanging gradients.
        synchronised_ms: steps of all, as they are trained.
        all_reduce_ms: exchanging the gradients alone.
    """

    processes: int
    gradient_bytes: int
    alone_ms: tuple[float, ...]
    together_ms: tuple[float, ...]
    synchronised_ms: tuple[float, ...]
    all_reduce_ms: tuple[float, ...]

    @property
    def expected_ms(self) -> float:
        """What :func:`step_seconds` makes of the median parts."""
        parts = (self.together_ms, self.all_reduce_ms)
        compute, all_reduce = (statistics.median(part) / 1000 for part in parts)
        return 1000 * step_seconds(compute, all_reduce, self.gradient_bytes)


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
    """Time training steps of a network on processes of one machine, their parts in turn.

    Args:
        name: see :class:`.Subject`; a backbone.
        batch, size: images of each process and step, and their height and width.
        device: cpu, or cuda: one GPU a process.
        runs, warmup: timed and untimed steps of each kind.

    Raises:
        ValueError: an unknown network, a whole detector, fewer than two processes.
        torch.multiprocessing.ProcessRaisedException: a process failed, with its error.
    """
    subject = Subject(name, training=True, device=device)
    if processes < 2 or subject.is_detector:
        raise ValueError(
            f"a backbone is measured on two or more processes, got {name} on {processes}"
        )
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, processes, subject, (batch, size), (runs, warmup))
        multiprocessing.spawn(_measure_process, arguments, nprocs=processes)
        found = json.loads((Path(folder) / "times.json").read_text())
    gradient_bytes = found.pop("gradient_bytes")
    times = {key: tuple(values) for key, values in found.items()}
    return ProcessTimes(processes=processes, gradient_bytes=gradient_bytes, **times)


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
        for bucket in gradients.split(BUCKET_BYTES // gradients.element_size()):
            dist.all_reduce(bucket)

    def met(call):
        dist.barrier()
        call()
        dist.barrier()  # of the slowest

    kinds = {
        "alone_ms": alone,
        "together_ms": together,
        "synchronised_ms": lambda: step(parallel),
        "all_reduce_ms": exchange,
    }
    calls = [lambda kind=kind: met(kind) for kind in kinds.values()]
    times = alternate(calls, runs=runs[0], warmup=runs[1])
    if rank == 0:
        found = dict(zip(kinds, times, strict=True))
        found["gradient_bytes"] = gradients.numel() * gradients.element_size()
        (Path(folder) / "times.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()

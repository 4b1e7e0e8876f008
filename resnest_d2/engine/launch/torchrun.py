"""Processes that torchrun started: its environment, and joining their group.

torchrun starts the processes, watches them and restarts a broken group, so nothing is launched
here: each process reads its place from the environment. Before the group exists, the processes talk
through torchrun's store: the first process of each machine plans the run and the others of its
machine get the plan. If one of them refuses the run, all refuse it.
"""

import contextlib
import dataclasses
import datetime
import functools
import gc
import itertools
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from detectron2.engine import DEFAULT_TIMEOUT
from detectron2.utils import comm

from ...errors import REFUSALS, error_text
from ..diagnosis.run_errors import RunError
from ..prepare.request import RunRequest

logger = logging.getLogger(__name__)

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_NAMES = (*_NUMBERS, "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Torchrun:
    """This process's place in torchrun's group.

    Attributes:
        restarts: how often the group was restarted.
        agent_store: torchrun itself serves the store at ``address``:``port``.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int
    restarts: int
    agent_store: bool

    @property
    def num_machines(self) -> int:
        return self.world_size // self.local_world_size


def read_environment() -> Torchrun | None:
    """What torchrun's environment says; None if torchrun has not started this process.

    Raises:
        ValueError: a variable has an invalid value.
    """
    if not all(os.environ.get(name) for name in _NAMES):
        return None
    values = {}
    for name in (*_NUMBERS, "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"):
        text = os.environ.get(name, "0")
        if not text.isdecimal():
            raise ValueError(f"the environment's {name} must be a whole number, got {text!r}")
        values[name] = int(text)
    rank, world, local_rank, local_world, port, restarts = values.values()
    if not (rank < world and local_rank < local_world <= world) or world % local_world:
        raise ValueError(
            "the environment's RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE do not go "
            f"together: {rank}, {world}, {local_rank}, {local_world}. Every machine needs the same "
            "number of processes"
        )
    address = os.environ["MASTER_ADDR"]
    agent_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Torchrun(rank, world, local_rank, local_world, address, port, restarts, agent_store)


def check_given(
    num_processes: int | None, num_machines: int | None, dist_url: str = "auto"
) -> None:
    """Raise a ValueError where options contradict torchrun. None and "auto" stand for not given."""
    place = read_environment()
    if place is None:
        return
    for option, given, variable, there in (
        ("--num-gpus", num_processes, "LOCAL_WORLD_SIZE", place.local_world_size),
        ("--num-machines", num_machines, "WORLD_SIZE / LOCAL_WORLD_SIZE", place.num_machines),
    ):
        if given is not None and given != there:
            raise ValueError(
                f"{option} is {given}, and torchrun's {variable} is {there}: leave {option} out, "
                "torchrun has started the processes"
            )
    if dist_url not in ("auto", "env://"):
        raise ValueError(
            f"--dist-url is {dist_url}, and torchrun's MASTER_ADDR is {place.address}: leave "
            "--dist-url out, the processes meet at torchrun's address"
        )


def adopt(request: RunRequest) -> RunRequest:
    """The request with torchrun's numbers of processes; a restarted group resumes.

    Raises:
        ValueError: the request contradicts the environment, or that is incomplete.
    """
    place = read_environment()
    if place is None:
        world = os.environ.get("WORLD_SIZE", "")
        several = os.environ.get("RANK") and world.isdecimal() and int(world) > 1
        if several and request.world_size == 1:  # each would train alone, in the same folder
            missing = ", ".join(name for name in _NAMES if not os.environ.get(name))
            raise ValueError(
                f"the environment has RANK, and WORLD_SIZE {world}, but not {missing}: start the "
                "processes with torchrun, or unset RANK and WORLD_SIZE"
            )
        return request
    check_given(
        None if request.num_processes == 1 else request.num_processes,
        None if request.num_machines == 1 else request.num_machines,
        request.dist_url,
    )
    return dataclasses.replace(
        request,
        num_processes=place.local_world_size,
        num_machines=place.num_machines,
        machine_rank=place.rank // place.local_world_size,
        dist_url="env://",
        resume=request.resume or (place.restarts > 0 and not request.eval_only),
    )


def process_rank() -> int:
    """This process's rank, also before it has joined its group."""
    place = None if dist.is_initialized() else read_environment()
    return place.rank if place else comm.get_rank()


def prefer_loopback(one_machine: bool) -> None:
    """Let gloo use the loopback device if all processes are on one machine.

    By default it takes the address of the host's name, which may not exist or not be reachable.
    """
    if one_machine and os.path.exists("/sys/class/net/lo"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


@functools.cache
def _store() -> dist.Store | None:
    """A store that all of torchrun's processes share; None where there are no others."""
    place = read_environment()
    if place is None or place.world_size == 1:
        return None
    store = dist.TCPStore(
        place.address,
        place.port,
        place.world_size,
        place.rank == 0 and not place.agent_store,
        timeout=DEFAULT_TIMEOUT,
        wait_for_workers=False,
    )
    return dist.PrefixStore(f"resnest_d2/{place.restarts}", store)  # it outlives the group


_ROUNDS = itertools.count()


def prepare_together(prepare: Callable[[RunRequest], Any], request: RunRequest) -> Any:
    """``prepare(adopt(request))``, with the same outcome in all of torchrun's processes.

    The first process of each machine prepares, and downloads what is needed; the others of its
    machine get its plan, and register the plan's data sets. An error of one is raised in all.
    """
    request = adopt(request)
    store = _store()
    if store is None:
        return prepare(request)
    place = read_environment()
    number, first = next(_ROUNDS), place.rank - place.local_rank
    plan, failure = None, None
    if place.rank == first:
        try:
            plan = prepare(request)
        except Exception as error:
            failure = error
        said = (_described(failure, first), cloudpickle.dumps(plan))
        store.set(f"{number}/{first}", pickle.dumps(said))
    firsts = range(0, place.world_size, place.local_world_size)
    heard = {rank: pickle.loads(store.get(f"{number}/{rank}")) for rank in firsts}
    if failure is not None:
        raise failure
    for description, _ in heard.values():
        if description:
            kind, message = description
            raise kind(message)
    if place.rank != first:
        plan = pickle.loads(heard[first][1])
        plan.register()
    return plan


def _described(error: Exception | None, rank: int) -> tuple[type[Exception], str] | None:
    """An error's type and message, for other processes: not every error can be pickled."""
    if error is None:
        return None
    kind = next((kind for kind in REFUSALS if isinstance(error, kind)), None)
    if kind:
        return kind, error_text(error)
    message = f"{type(error).__name__}: {error_text(error)}"
    return RunError, f"the process of rank {rank} failed: {message}"


@contextlib.contextmanager
def joined(place: Torchrun, *, on_cpu: bool) -> Iterator[None]:
    """Be a member of torchrun's group: over gloo on the CPU, over NCCL on GPUs."""
    if place.restarts:
        logger.info(
            f"torchrun has restarted this group (restart {place.restarts}): going on from the "
            "last checkpoint, if there is one"
        )
    if place.world_size == 1:
        yield
        return
    prefer_loopback(place.num_machines == 1)
    if not on_cpu:
        torch.cuda.set_device(place.local_rank)
    dist.init_process_group(
        "gloo" if on_cpu else "nccl",
        store=dist.PrefixStore("group", _store()),
        rank=place.rank,
        world_size=place.world_size,
        timeout=DEFAULT_TIMEOUT,
    )
    comm.create_local_process_group(place.local_world_size)
    comm.synchronize()
    try:
        yield
    except SystemExit:
        leave(timeout=600)  # torchrun ends the others when one exits: the first is still saving
        raise
    leave_group()  # not after a failure: it may block on processes that have exited


def leave_group() -> None:
    """Destroy PyTorch's process group, and with it gloo's threads.

    A thread that still holds a tensor when Python ends aborts the process. Detectron2 caches the
    group, and a trainer, which refers to itself, holds it until it is collected.
    """
    comm._get_global_gloo_group.cache_clear()
    gc.collect()
    dist.destroy_process_group()


def record(message: str) -> None:
    """Tell torchrun why this process fails; it shows the reason of the first one."""
    if os.environ.get("TORCHELASTIC_ERROR_FILE"):
        try:
            raise RunError(message) from None  # the handler records the error that is handled
        except RunError as error:
            get_error_handler().record_exception(error)


def leave(timeout: float = 10) -> None:
    """Let the first process print its message: torchrun ends it when another one exits."""
    if not _store.cache_info().currsize or (store := _store()) is None:
        return  # there are no others, or they know nothing of a failure
    place = read_environment()
    limit = datetime.timedelta(seconds=timeout)
    # A store that is gone was served by a process that is gone: nothing is left to wait for.
    with contextlib.suppress(RuntimeError):
        if place.rank:
            store.wait(["left"], limit)
            store.set(f"gone/{place.rank}", "")
        else:
            store.set("left", "")
            if not place.agent_store:  # this process serves it
                store.wait([f"gone/{rank}" for rank in range(1, place.world_size)], limit)

"""The processes of a run: on this machine and on others, started here or by torchrun.

Processes are started here by Detectron2's ``launch``, which is PyTorch's ``spawn``. Added for long
runs:

- The error of the process that failed first is shown. The others then fail by a closed connection.
- SIGTERM and SIGUSR1 are passed on, and the wait for the processes has no limit, so that a run can
  save. (``torch.distributed.elastic`` kills them after 30 seconds.)
- No process is left behind: the kernel ends one that hangs at its end, and PyTorch sends SIGINT to
  the processes of a parent that has died.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import torch.distributed as dist
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from detectron2.engine import launch
from detectron2.utils import comm

from resnest_d2_command.signals import STOP_SIGNALS, STOPPED, say_stopped

from ...files import writing
from ..diagnosis.run_errors import RunError, end_soon, explain, is_lost_peer, log_failure
from ..prepare.request import RunRequest
from .lock import locked
from .torchrun import joined, leave_group, prefer_loopback, read_environment

if TYPE_CHECKING:
    from ..prepare.plan import Plan

_HESITATION = 6  # seconds that a process which lost another waits: torchrun may look every 5
_GRACE = 20  # seconds that an interrupted process has to end


def run_in_processes(work: Callable[["Plan"], dict], plan: "Plan") -> dict:
    """Do the work of a plan in each of its processes.

    Args:
        work: ``plan -> results``, at the top level of its module: new processes find it by name.
        plan: new processes get a copy, and register its data sets.

    Returns:
        The first process's results; empty in torchrun's other processes and on other machines.

    Raises:
        RunError: a process that was started here has failed.
        SystemExit: a process that was started here has saved and stopped.
    """
    place = read_environment()
    with locked(*plan.output_dir, plan.request):
        if place is None and plan.request.world_size > 1:
            return _launch(work, plan)
        with joined(place, on_cpu=plan.device == "cpu") if place else contextlib.nullcontext():
            return _share(work, plan)


def _share(work: Callable, plan: "Plan") -> dict:
    """Do one process's share of the work, and log its failure."""
    try:
        return work(plan)
    except Exception as error:
        log_failure(error)
        if plan.request.world_size > 1:
            end_soon()
            if is_lost_peer(error):
                time.sleep(_HESITATION)
        raise


def _launch(work: Callable, plan: "Plan") -> dict:
    request, on_cpu = plan.request, plan.device == "cpu"
    added = {"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}  # without a GPU, launch chooses gloo
    if on_cpu and "OMP_NUM_THREADS" not in os.environ:
        added["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // request.num_processes))
    with tempfile.TemporaryDirectory() as folder, _environment(added), _forwarding() as received:
        try:
            launch(
                _launched,
                request.num_processes,
                num_machines=request.num_machines,
                machine_rank=request.machine_rank,
                dist_url=request.dist_url,
                args=(work, cloudpickle.dumps(plan), folder),
            )
        except (ProcessExitedException, ProcessRaisedException) as error:
            number = -getattr(error, "exit_code", 0)
            if number in received and number in STOP_SIGNALS:  # it had nothing to save yet
                say_stopped(number)
                raise SystemExit(STOPPED) from None
            raise _first_failure(error, _reports(folder), request) from None
        reports = _reports(folder)
    if any("stopped" in report for report in reports):
        raise SystemExit(STOPPED)
    return next((report["results"] for report in reports if "results" in report), {})


def _launched(work: Callable, plan_bytes: bytes, folder: str) -> None:
    """The work of a new process, which leaves a report in ``folder``."""
    _end_with_parent()
    plan = pickle.loads(plan_bytes)
    prefer_loopback(plan.request.num_machines == 1)
    try:
        plan.register()  # a new process knows no data set yet
        results = _share(work, plan)
        if comm.is_main_process():
            _report(folder, results=results)
    except SystemExit as stop:
        if stop.code != STOPPED:
            raise
        _report(folder, stopped=True)  # not a failure: the other processes may finish saving
    except Exception as error:
        _report(
            folder,
            message=explain(error),
            traceback="".join(traceback.format_exception(error)),
            lost_peer=is_lost_peer(error),
            names_process=getattr(error, "names_process", False),
        )
        raise
    if dist.is_initialized():
        leave_group()


def _end_with_parent() -> None:
    """React to the SIGINT that PyTorch sends when the parent dies, even where SIGINT is ignored.

    A shell script ignores SIGINT in commands that it starts with ``&``.
    """
    parent = multiprocessing.parent_process().pid

    def end(number: int, frame) -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)


def _report(folder: str, **entries) -> None:
    rank = comm.get_rank()
    with writing(Path(folder, f"{rank}.pickle")) as file:
        pickle.dump({"rank": rank, "time": time.time(), **entries}, file)


def _reports(folder: str) -> list[dict]:
    """How processes of this machine have ended."""
    return [pickle.loads(file.read_bytes()) for file in Path(folder).glob("*.pickle")]


def _first_failure(
    error: ProcessExitedException | ProcessRaisedException, reports: list[dict], request: RunRequest
) -> RuntimeError:
    """The error of the process that failed first; those of the others are closed connections."""

    def process(rank: int) -> str:
        return f"the process of rank {rank} (of {request.world_size})"

    failures = {report["rank"]: report for report in reports if "message" in report}
    rank = request.machine_rank * request.num_processes + error.error_index
    name = getattr(error, "signal_name", None)
    if name and rank not in failures:
        why = "the system does that to a process when memory runs out"
        why = f" ({why})" if name == "SIGKILL" else ""
        return RunError(f"{process(rank)} was killed by {name}{why}. The others were ended")
    if not failures:
        return RunError(f"{process(rank)} has ended: {str(error).strip()}")
    first = min(failures.values(), key=lambda report: (report["lost_peer"], report["time"]))
    who, message = process(first["rank"]), first["message"]
    if message is None:
        return RuntimeError(f"{who} failed:\n\n{first['traceback']}")
    return RunError(message if first["names_process"] else f"{who}: {message}")


@contextlib.contextmanager
def _environment(added: dict[str, str]) -> Iterator[None]:
    """Add variables for the processes that are started inside: they inherit the environment."""
    saved = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in saved.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _forwarding() -> Iterator[set[int]]:
    """Pass SIGTERM and SIGUSR1 on to the processes that are started inside, and wait on.

    SIGINT ends the wait, once they have ended too. Gives the set of the signals received.
    """
    others = set(multiprocessing.active_children())
    received: set[int] = set()

    def pass_on(number: int, frame=None) -> None:
        received.add(number)
        for process in set(multiprocessing.active_children()) - others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    saved = {n: signal.signal(n, pass_on) for n in STOP_SIGNALS} if in_main_thread else {}
    try:
        yield received
    except KeyboardInterrupt:
        pass_on(signal.SIGINT)
        raise
    finally:
        limit = time.monotonic() + _GRACE
        for process in set(multiprocessing.active_children()) - others:
            process.join(max(0, limit - time.monotonic()))
            process.kill()
        for number, handler in saved.items():
            signal.signal(number, handler)

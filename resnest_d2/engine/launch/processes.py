"""The processes of a run: on this machine and on others, started here or by torchrun.

Processes that are started here are Detectron2's ``launch``, which is PyTorch's ``spawn``. Added is
what a run of days needs. The first process that fails is the one whose error is shown: what the
others meet then, a connection that was closed, is told apart. SIGTERM and SIGINT are passed on, so
that a preempted run saves. Nothing stays behind: a process that cannot end in time is ended by the
kernel, and a process without its parent gets SIGINT from PyTorch.
"""

import contextlib
import json
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

from ...evaluation import write_results
from ...files import writing
from ..diagnosis.run_errors import RunError, end_soon, explain, is_lost_peer, log_failure
from ..prepare.request import RunRequest
from .lock import locked
from .torchrun import joined, leave_group, prefer_loopback, read_environment

if TYPE_CHECKING:
    from ..prepare.plan import Plan

__all__ = ["run_in_processes"]

_HESITATION = 6  # seconds that a process which lost another leaves to it: torchrun may look every 5
_GRACE = 20  # seconds that an interrupted process has to end
_RESULTS = "results"  # file of the first process


def run_in_processes(work: Callable[["Plan"], dict], plan: "Plan") -> dict:
    """Do the work of a plan in each of its processes.

    Args:
        work: ``plan -> results``, at the top level of its module: new processes find it by name.
        plan: new processes get a copy, and register its data sets.

    Returns:
        The results; empty but in the first process and on its machine.

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
    """One process's share of the work, its failure logged."""
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
    added = {"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}
    if on_cpu and "OMP_NUM_THREADS" not in os.environ:
        added["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // request.num_processes))
    with tempfile.TemporaryDirectory() as folder, _environment(added), _forwarding() as received:
        try:
            # The processes inherit the environment: without a GPU, launch chooses gloo.
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
            raise _first_failure(error, Path(folder), request) from None
        if any(report["stopped"] for report in _reports(Path(folder))):
            raise SystemExit(STOPPED)
        return _read_results(Path(folder, _RESULTS))


def _launched(work: Callable, plan_bytes: bytes, folder: str) -> None:
    """What each new process does; how it ends is left in ``folder``."""
    _end_with_parent()
    plan = pickle.loads(plan_bytes)
    prefer_loopback(plan.request.num_machines == 1)
    try:
        plan.register()  # a new process knows no data set yet
        results = _share(work, plan)
        if comm.is_main_process():
            write_results(results, Path(folder, _RESULTS))
    except SystemExit as stop:
        if stop.code != STOPPED:
            raise
        _report(folder, stopped=True)  # no failure: nobody is to be ended for it while he saves
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
    """Obey the SIGINT that tells of the parent's death where others are to be ignored.

    They are in what a shell's script has started with ``&``, and then PyTorch's was ignored too.
    """
    parent = multiprocessing.parent_process().pid

    def end(number: int, frame) -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)


def _read_results(file: Path) -> dict:
    """What the first process wrote; a number that does not exist is NaN, as in an evaluation."""

    def numbers(entries: dict) -> dict:
        return {key: float("nan") if value is None else value for key, value in entries.items()}

    return json.loads(file.read_text(), object_hook=numbers) if file.is_file() else {}


def _report(folder: str, **entries) -> None:
    rank = comm.get_rank()
    entries = {"rank": rank, "time": time.time(), "stopped": False, **entries}
    with writing(Path(folder, f"{rank}.json"), "w") as file:
        file.write(json.dumps(entries))


def _reports(folder: Path) -> list[dict]:
    """How processes of this machine have ended, in the order of time."""
    reports = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    return sorted(reports, key=lambda report: report["time"])


def _first_failure(
    error: ProcessExitedException | ProcessRaisedException, folder: Path, request: RunRequest
) -> RuntimeError:
    """The error of the process that failed first; that of others is a closed connection."""
    rank = request.machine_rank * request.num_processes + error.error_index
    reports = [report for report in _reports(folder) if not report["stopped"]]
    who = f"the process of rank {{}} (of {request.world_size})"
    name = getattr(error, "signal_name", None)
    if name and rank not in [report["rank"] for report in reports]:
        text = f"{who.format(rank)} was killed by {name}"
        if name == "SIGKILL":
            text += " (the system does that to a process when memory runs out)"
        return RunError(f"{text}. The others were ended")
    first = next(
        (report for report in reports if not report["lost_peer"]), reports[0] if reports else None
    )
    if first is None:
        return RunError(f"{who.format(rank)} has ended: {str(error).strip()}")
    if first["message"] is None:
        return RuntimeError(f"{who.format(first['rank'])} failed:\n\n{first['traceback']}")
    if first["names_process"]:
        return RunError(first["message"])
    return RunError(f"{who.format(first['rank'])}: {first['message']}")


@contextlib.contextmanager
def _environment(added: dict[str, str]) -> Iterator[None]:
    saved = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name)
            else:
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

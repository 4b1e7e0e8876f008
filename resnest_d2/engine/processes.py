"""The processes of a run: on this machine and on others."""

import os
from collections.abc import Callable

from detectron2.engine import launch

from .request import RunRequest

__all__ = ["launch_processes"]


def launch_processes(
    work: Callable[[RunRequest], None], request: RunRequest, *, on_cpu: bool
) -> None:
    """Call ``work(request)`` in each of the request's processes."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}
    if on_cpu and "OMP_NUM_THREADS" not in os.environ:
        hidden["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // request.num_processes))
    saved = {name: os.environ.get(name) for name in hidden}
    os.environ.update(hidden)  # the processes inherit it: without a GPU, launch chooses gloo
    try:
        launch(
            work,
            request.num_processes,
            num_machines=request.num_machines,
            machine_rank=request.machine_rank,
            dist_url=request.dist_url,
            args=(request,),
        )
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value

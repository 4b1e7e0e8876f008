"""Shared by the commands: messages, exit codes, and the run of ``train`` and ``evaluate``.

With ``--json`` a command prints only JSON on stdout.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from resnest_d2_command.signals import INTERRUPTED

from ..errors import REFUSALS, error_text
from ..text import printable_lines

if TYPE_CHECKING:
    from ..engine import Plan, RunRequest


def fail(error: Exception | str, code: int = 1) -> int:
    """Print an error; returns the exit code."""
    say(f"resnest-d2: error: {error_text(error)}", file=sys.stderr)
    return code


def refuse(error: Exception) -> int:
    """Print why the input is refused."""
    return fail(error, 2)


def not_written(target: str | os.PathLike, error: OSError) -> int:
    """Print why a file or a folder could not be written, such as a full disk."""
    from ..files import write_failure_reason

    reason, advice = write_failure_reason(error)
    return fail(f"{target} is not written: {reason} ({advice})")


def interrupted(advice: str = "") -> int:
    """Print that Ctrl-C has ended the command; returns a shell's exit code for it."""
    return fail(f"interrupted ({advice})" if advice else "interrupted", INTERRUPTED)


@contextlib.contextmanager
def log_on_stderr(wanted: bool = True) -> Iterator[None]:
    """Send all output of this process and its children to stderr: stdout is for JSON."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def data_pairs(args: argparse.Namespace, split: str) -> tuple[tuple[str, str], ...]:
    """Own data as (annotations, image folder) pairs.

    They are ``--SPLIT-json``, or ``--SPLIT-labels`` where a command has it, and ``--SPLIT-images``.
    Images in folders of classes have no annotations: their pairs are ("", image folder).

    Raises:
        ValueError: their numbers differ.
    """
    kind = "labels" if getattr(args, f"{split}_labels", None) else "json"
    if kind == "labels" and getattr(args, f"{split}_json"):
        raise ValueError(f"--{split}-json and --{split}-labels are of two tasks: give one of them")
    files, folders = (getattr(args, f"{split}_{name}") or () for name in (kind, "images"))
    files, folders = ([x] if isinstance(x, str) else x for x in (files, folders))
    if not files and hasattr(args, f"{split}_labels"):
        files = [""] * len(folders)
    if len(files) != len(folders):
        raise ValueError(
            f"--{split}-{kind} and --{split}-images belong together: got {len(files)} and "
            f"{len(folders)}"
        )
    return tuple(zip(files, folders, strict=True))


def paths_in_pairs(paths: Sequence[str]) -> list[tuple[str, str]]:
    """The same of ``JSON IMAGES JSON IMAGES …``, the short form."""
    if len(paths) % 2:
        raise ValueError(f"data sets are pairs of JSON and IMAGES, got {len(paths)} paths")
    return list(zip(paths[::2], paths[1::2], strict=True))


def process_options(args: argparse.Namespace) -> dict[str, Any]:
    """A command line's processes and machines, for a ``RunRequest``.

    Raises:
        ValueError: they contradict torchrun's environment.
    """
    from ..engine.launch import torchrun

    torchrun.check_given(args.num_gpus, args.num_machines, args.dist_url)
    return {
        "num_processes": 1 if args.num_gpus is None else args.num_gpus,
        "num_machines": 1 if args.num_machines is None else args.num_machines,
        "machine_rank": args.machine_rank,
        "dist_url": args.dist_url,
    }


def execute(
    build: Callable[[], "RunRequest"],
    prepare: Callable[["RunRequest"], "Plan"],
    run: Callable[["Plan"], dict],
    *,
    json: bool = False,
) -> int:
    """Check and do a run; returns its exit code. Only one process prints an error.

    Args:
        build: gives the request; it may refuse it.
        prepare, run: of :mod:`resnest_d2.engine`.
        json: print the metrics as JSON, and the log on stderr.
    """
    from ..engine import explain
    from ..engine.launch import torchrun
    from ..engine.training.records import shown_log
    from ..evaluation import results_json

    rank = 0
    try:
        try:
            rank = torchrun.process_rank()
            request = build()
            with log_on_stderr(json), shown_log(request.quiet):
                plan = prepare(request)
        except REFUSALS as error:
            code = 2 if rank else refuse(error)
            torchrun.record(error_text(error))
            torchrun.leave()
            return code
        with log_on_stderr(json):
            results = run(plan)
        if json and not rank and not request.machine_rank:
            print(results_json(results))
    except KeyboardInterrupt:
        advice = "--resume goes on from the last checkpoint"
        return INTERRUPTED if rank else interrupted(advice)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise  # a bug: show its traceback
        torchrun.record(message)
        if getattr(error, "shared", False):  # all processes have this error: the first prints it
            code = 1 if rank else fail(message)
            torchrun.leave()
            return code
        named = not rank or getattr(error, "names_process", False)
        return fail(message if named else f"the process of rank {rank}: {message}")
    return 0


def say(text: object, file: TextIO | None = None) -> None:
    """Print lines. Names from files are escaped: they may hold terminal escapes."""
    print(printable_lines(text), file=file)

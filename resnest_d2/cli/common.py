"""What the commands share."""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from resnest_d2_doctor.commands import COMMANDS

from ..modeling.checks import REFUSALS, error_text

if TYPE_CHECKING:
    from ..engine import RunRequest

__all__ = ["REFUSALS", "add_parser", "execute", "fail", "process_options", "refuse"]


def add_parser(
    commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str | None = None,
    **kwargs,
) -> argparse.ArgumentParser:
    """A subcommand's parser.

    Args:
        commands: what ``add_subparsers`` returned.
        run: the command; it returns the exit code.
        text: what it does, without a capital and a full stop; that of ``COMMANDS`` by default.
    """
    text = text or COMMANDS[name]
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **kwargs,
    )
    parser.set_defaults(run=run)
    return parser


def refuse(error: Exception) -> int:
    """Say why the input is refused."""
    _show(error)
    return 2


def fail(error: Exception | str) -> int:
    """Say why the work is not done."""
    _show(error)
    return 1


def process_options(args: argparse.Namespace) -> dict[str, Any]:
    """What a command line says of processes and machines, for a ``RunRequest``.

    Raises:
        ValueError: it contradicts torchrun's environment.
    """
    from ..engine import torchrun

    torchrun.check_given(args.num_gpus, args.num_machines, args.dist_url)
    return {
        "num_processes": 1 if args.num_gpus is None else args.num_gpus,
        "num_machines": 1 if args.num_machines is None else args.num_machines,
        "machine_rank": args.machine_rank,
        "dist_url": args.dist_url,
    }


def execute(
    build: Callable[[], "RunRequest"],
    prepare: Callable[["RunRequest"], object],
    run: Callable[["RunRequest"], dict],
) -> int:
    """Check and do a run: its exit code. What went wrong is said once, by one process.

    Args:
        build: gives the request; it may refuse it.
        prepare, run: of :mod:`resnest_d2.engine`.
    """
    from ..engine import explain, torchrun

    rank = 0
    try:
        try:
            rank = torchrun.process_rank()
            request = build()
            prepare(request)
        except REFUSALS as error:
            code = 2 if rank else refuse(error)
            torchrun.record(error_text(error))
            torchrun.leave()
            return code
        run(request)
    except KeyboardInterrupt:
        return 130 if rank else _interrupted()
    except Exception as error:
        message = explain(error)
        if message is None:
            raise  # a bug: its traceback is wanted
        torchrun.record(message)
        if not getattr(error, "shared", False):
            named = not rank or getattr(error, "names_process", False)
            return fail(message if named else f"the process of rank {rank}: {message}")
        code = 1 if rank else fail(message)  # all processes have this error: the first says it
        torchrun.leave()
        return code
    return 0


def _interrupted() -> int:
    fail("interrupted (--resume goes on from the last checkpoint)")
    return 130


def _show(error: Exception | str) -> None:
    print(f"resnest-d2: error: {error_text(error)}", file=sys.stderr)

"""What the commands share."""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine import RunRequest

__all__ = ["REFUSALS", "add_parser", "execute", "fail", "refuse"]

REFUSALS = (ValueError, KeyError, FileNotFoundError, FileExistsError)
"""What bad input raises, before any work is done."""


def add_parser(
    commands, name: str, run: Callable[[argparse.Namespace], int], text: str, **kwargs
) -> argparse.ArgumentParser:
    """A subcommand's parser.

    Args:
        commands: what ``add_subparsers`` returned.
        run: the command; it returns the exit code.
        text: what it does, without a capital and a full stop.
    """
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
            torchrun.record(_words(error))
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
    print(f"resnest-d2: error: {_words(error)}", file=sys.stderr)


def _words(error: Exception | str) -> str:
    # The text of a KeyError is its argument's representation.
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)

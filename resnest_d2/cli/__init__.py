"""The ``resnest-d2`` command, one module per group of subcommands. Files in ``tools/`` are doors.

Exit codes: 0 done, 1 failed, 2 refused input, 130 interrupted, 75 a training that SIGTERM or
SIGUSR1 has stopped after it had saved, or before there was something to save: ``--resume`` goes on
with it.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from resnest_d2_command.commands import root_parser
from resnest_d2_command.signals import ended_by_signals

from ..progress import show_progress
from . import (
    benchmark,
    compare,
    convert,
    data,
    doctor,
    explain,
    export,
    predict,
    replay,
    report,
    run,
    zoo,
)
from .common import fail, interrupted

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser, commands = root_parser()
    for module in (
        run,
        replay,
        predict,
        explain,
        export,
        data,
        zoo,
        convert,
        compare,
        report,
        benchmark,
        doctor,
    ):
        module.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        with ended_by_signals(arguments):
            args = build_parser().parse_args(arguments)
            with show_progress(not getattr(args, "quiet", False)):
                code = args.run(args)
        sys.stdout.flush()  # here, where a reader that has gone is no bug
        return code
    except KeyboardInterrupt:
        return interrupted()
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a folder that must not be read, a disk that fails
        return fail(error)

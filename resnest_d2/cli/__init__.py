"""The ``resnest-d2`` command, one module per group of subcommands. Files in ``tools/`` are doors.

Exit codes: 0 done, 1 failed, 2 refused input, 75 a training that SIGTERM or SIGUSR1 has stopped
after it had saved: ``--resume`` goes on with it.
"""

import argparse
from collections.abc import Sequence

from resnest_d2_doctor.commands import root_parser

from . import benchmark, convert, data, doctor, explain, export, predict, replay, run, zoo

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser, commands = root_parser()
    for module in (run, replay, predict, explain, export, data, zoo, convert, benchmark, doctor):
        module.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = _parser().parse_args(argv)
    return args.run(args)

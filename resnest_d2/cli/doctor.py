"""``doctor``, for a package that imports; ``resnest_d2_doctor`` has it for one that does not."""

from resnest_d2_command.entry import EPILOG, add_arguments, run

from .common import add_parser

__all__ = ["add_commands"]


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    add_arguments(add_parser(commands, "doctor", run, epilog=EPILOG))

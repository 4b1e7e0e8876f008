"""What the commands share."""

import argparse
import sys
from collections.abc import Callable

__all__ = ["REFUSALS", "add_parser", "fail", "refuse"]

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


def _show(error: Exception | str) -> None:
    # The text of a KeyError is its argument's representation.
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    print(f"resnest-d2: error: {message}", file=sys.stderr)

"""The entry point of the ``resnest-d2`` command."""

import sys
from collections.abc import Sequence

from .parsers import build_parser
from .signals import ended_by_signals
from .zoo import print_catalog, with_show


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    arguments = with_show(sys.argv[1:] if argv is None else list(argv))
    args = build_parser().parse_args(arguments)
    if args.run in ("zoo.list", "zoo.show"):
        return print_catalog(args)
    if args.run == "doctor":
        from .doctor import command

        return command.run(args)
    try:
        with ended_by_signals(arguments, importing=True):
            from resnest_d2.cli import run_command
    except Exception as error:  # torchvision raises RuntimeError, an old Detectron2 AttributeError
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        print(f"resnest-d2: error: {kind}{error}", file=sys.stderr)
        if "resnest-d2 doctor" not in str(error):
            print("For the cause and the remedy run: resnest-d2 doctor", file=sys.stderr)
        return 1
    with ended_by_signals(arguments):
        return run_command(args)

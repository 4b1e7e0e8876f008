"""The door of the ``resnest-d2`` command, and ``doctor``, which must open where others cannot."""

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from .commands import COMMANDS, describe, root_parser
from .doctor.children import run_steps
from .doctor.data import check_data
from .doctor.findings import PROBLEM, Check, as_json, as_table, can_colour
from .doctor.machine import check_machine
from .doctor.software import check_software, steps
from .signals import ended_by_signals

__all__ = ["EPILOG", "add_arguments", "command", "diagnose", "doctor", "run"]

EPILOG = """
Examples:
  all checks, and what to do about each problem:
    resnest-d2 doctor
  for a program, {"checks": [{"group", "name", "status", "found", "remedy"}]}:
    resnest-d2 doctor --json
  where the command itself is missing:
    python -m resnest_d2_doctor

Exit codes: 0 no problem, 1 problems, 2 unknown arguments.
"""


def command(argv: Sequence[str] | None = None) -> int:
    """``resnest-d2``: the doctor by itself, every other command through the package.

    So is the list of the commands: it need not wait for PyTorch.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] in ([], ["-h"], ["--help"]):
        parser, commands = root_parser()
        for name, text in COMMANDS.items():
            commands.add_parser(name, help=text)
        parser.parse_args(arguments)  # exits
    if arguments[:1] == ["doctor"]:
        return doctor(arguments[1:])
    try:
        with ended_by_signals(arguments, importing=True):
            from resnest_d2.cli import main
    except Exception as error:  # torchvision raises RuntimeError, an old Detectron2 AttributeError
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        print(f"resnest-d2: error: {kind}{error}", file=sys.stderr)
        if "resnest-d2 doctor" not in str(error):
            print("To see what is wrong here and what to do: resnest-d2 doctor", file=sys.stderr)
        return 1
    return main(arguments)


def doctor(argv: Sequence[str]) -> int:
    """``resnest-d2 doctor`` and ``python -m resnest_d2_doctor``."""
    parser = argparse.ArgumentParser(
        prog="resnest-d2 doctor",
        description=describe("doctor"),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument(
        "--quiet", action="store_true", help="no progress, and nothing printed but problems"
    )


def run(args: argparse.Namespace) -> int:
    with _progress(not args.quiet) as show:
        checks = diagnose(show)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without the arrow
    shown = [check for check in checks if check.status == PROBLEM or not args.quiet]
    if args.json:
        print(as_json(checks))
    elif shown:
        print(as_table(shown, colour=can_colour()))
    return int(any(check.status == PROBLEM for check in checks))


@contextlib.contextmanager
def _progress(shown: bool) -> Iterator[Callable[[str], None]]:
    """Says on a terminal's stderr what is done, in one line. tqdm may be what is missing here."""
    clear = "\r\033[K"
    if not shown or not sys.stderr.isatty():
        yield lambda step: None
        return
    try:
        yield lambda step: print(f"{clear}checking: {step} …", end="", file=sys.stderr, flush=True)
    finally:
        print(clear, end="", file=sys.stderr, flush=True)


def diagnose(begins: Callable[[str], None] = lambda step: None) -> list[Check]:
    """All checks of this environment, in the report's order. Takes as long as importing PyTorch.

    Args:
        begins: told of each step that is begun.
    """
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(run_steps, steps(), begins=begins)
        machine = check_machine()
        outcomes = probing.result()
    return [*machine, *check_software(outcomes), *check_data(outcomes)]

"""``doctor``: all checks, printed."""

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from .children import run_steps
from .data import check_data
from .findings import PROBLEM, Check, as_json, as_table, can_colour
from .machine import check_machine
from .software import check_software, steps

__all__ = ["diagnose", "run"]


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

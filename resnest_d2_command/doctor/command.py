"""Runs all checks and prints them."""

import argparse
import io
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .children import run_steps
from .data import check_data
from .findings import PROBLEM, Check, as_json, as_table
from .machine import check_machine
from .software import check_software, steps


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    clear = "\r\033[K"

    def show(step: str) -> None:  # without tqdm, which may be missing
        print(f"{clear}checking: {step} …", end="", file=sys.stderr, flush=True)

    shown = sys.stderr.isatty() and not args.quiet
    checks = diagnose(show if shown else lambda step: None)
    if shown:
        print(clear, end="", file=sys.stderr, flush=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may have no arrow
    problems = [check for check in checks if check.status == PROBLEM]
    if args.json:
        print(as_json(checks))
    elif problems or not args.quiet:
        print(as_table(problems if args.quiet else checks))
    return int(bool(problems))


def diagnose(begins: Callable[[str], None] = lambda step: None) -> list[Check]:
    """All checks in the order of the report. Takes as long as importing PyTorch and Detectron2.

    Args:
        begins: called with the name of each probe that begins.
    """
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(run_steps, steps(), begins=begins)
        machine = check_machine()
        outcomes = probing.result()
    return [*machine, *check_software(outcomes), *check_data(outcomes["weights"])]

"""What was found: one record per check, as a table for people and as JSON for programs."""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

__all__ = ["OK", "PROBLEM", "WARNING", "Check", "as_json", "as_table"]

OK = "ok"
WARNING = "warning"  # works, but slowly, in part, or not with everything
PROBLEM = "problem"  # resnest-d2 or Detectron2 does not work

_COLOURS = {OK: "32", WARNING: "33", PROBLEM: "31"}  # green, yellow, red
_WIDEST = 100


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        group: the part of the environment.
        name: what was looked at.
        status: :data:`OK`, :data:`WARNING` or :data:`PROBLEM`.
        found: what is there, or what went wrong.
        remedy: commands for this environment, one a line, each to be pasted as it is; a line that
            starts with # explains. Empty where nothing is to be done.
    """

    group: str
    name: str
    status: str
    found: str
    remedy: str = ""


def as_json(checks: Sequence[Check]) -> str:
    return json.dumps({"checks": [asdict(check) for check in checks]}, indent=2)


def as_table(checks: Sequence[Check], *, colour: bool = False) -> str:
    """The report for a terminal; commands are not wrapped, so that they can be copied."""
    names = max(len(check.name) for check in checks)
    margin = " " * (2 + len(PROBLEM) + 2 + names + 2)
    width = max(60, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns))
    lines: list[str] = []
    shown: dict[str, str] = {}
    for group, members in groupby(checks, lambda check: check.group):
        lines += ["", group]
        for check in members:
            found = _wrap(check.found, width - len(margin))
            status = f"{check.status:{len(PROBLEM)}}"
            if colour:
                status = f"\033[{_COLOURS[check.status]}m{status}\033[0m"
            lines.append(f"  {status}  {check.name:{names}}  {found[0] if found else ''}".rstrip())
            lines += [margin + line for line in found[1:]]
            lines += _remedy(check, shown)
    return "\n".join([*lines[1:], "", _verdict(checks)])


def _remedy(check: Check, shown: dict[str, str]) -> list[str]:
    """The lines below a check, at the left, where the longest commands fit.

    Args:
        shown: the checks that remedies were shown for, by remedy: a command is shown once.
    """
    left = " " * (2 + len(PROBLEM) + 2)
    lines = check.remedy.splitlines()
    if any(not line.startswith("#") for line in lines):
        first = shown.setdefault(check.remedy, check.name)
        if first != check.name:
            return [f"{left}as for {first} above"]
    return [left + (line[2:] if line.startswith("# ") else f"→ {line}") for line in lines]


def _verdict(checks: Sequence[Check]) -> str:
    problems, warnings = (
        [check.name for check in checks if check.status == status] for status in (PROBLEM, WARNING)
    )
    lines = ["No problems."]
    if problems:
        lines = [
            f"{_count(problems, 'problem')}: {', '.join(problems)}. Run the first one's remedy "
            "(→), then the doctor again: later problems often go with it."
        ]
    if warnings:
        lines.append(f"{_count(warnings, 'warning')}: {', '.join(warnings)}.")
    return "\n".join(part for line in lines for part in _wrap(line, _WIDEST))


def _wrap(text: str, width: int) -> list[str]:
    # Paths and commands stay whole, so that they can be copied.
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _count(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}"


def can_colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ

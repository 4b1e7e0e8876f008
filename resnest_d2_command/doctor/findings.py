"""Results of the checks, as a table and as JSON."""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

OK = "ok"
WARNING = "warning"  # works, but slowly or not with everything
PROBLEM = "problem"  # resnest-d2 or Detectron2 does not work

_COLOURS = {OK: "32", WARNING: "33", PROBLEM: "31"}  # green, yellow, red
_WIDEST = 100


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        group: part of the environment.
        name: what was checked.
        status: :data:`OK`, :data:`WARNING` or :data:`PROBLEM`.
        found: what is there, or what went wrong.
        remedy: commands to paste, one per line; lines that start with # are comments. Empty if
            nothing is to be done.
    """

    group: str
    name: str
    status: str
    found: str
    remedy: str = ""


def gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size < 100 << 30 else f"{size / 2**30:.0f} GiB"


def as_json(checks: Sequence[Check]) -> str:
    return json.dumps({"checks": [asdict(check) for check in checks]}, indent=2)


def as_table(checks: Sequence[Check]) -> str:
    """The report for a terminal. Commands are not wrapped, so that they can be copied."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    names = max(len(check.name) for check in checks)
    left = " " * (2 + len(PROBLEM) + 2)
    margin = left + " " * (names + 2)
    width = max(60, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns))
    lines: list[str] = []
    shown: dict[str, str] = {}  # by remedy, the check that it was shown for
    for group, members in groupby(checks, lambda check: check.group):
        lines += ["", group]
        for check in members:
            first, *more = _wrap(check.found, width - len(margin)) or [""]
            status = f"{check.status:{len(PROBLEM)}}"
            if colour:
                status = f"\033[{_COLOURS[check.status]}m{status}\033[0m"
            lines.append(f"  {status}  {check.name:{names}}  {first}".rstrip())
            lines += [margin + line for line in more]
            remedy = check.remedy.splitlines()
            has_command = any(not line.startswith("#") for line in remedy)
            if has_command and shown.setdefault(check.remedy, check.name) != check.name:
                lines.append(f"{left}as for {shown[check.remedy]} above")
                continue
            lines += [left + (s[2:] if s.startswith("# ") else f"→ {s}") for s in remedy]
    return "\n".join([*lines[1:], "", *_summary(checks)])


def _summary(checks: Sequence[Check]) -> list[str]:
    def listed(status: str) -> str:
        names = [check.name for check in checks if check.status == status]
        plural = "" if len(names) == 1 else "s"
        return names and f"{len(names)} {status}{plural}: {', '.join(names)}."

    problems, warnings = listed(PROBLEM), listed(WARNING)
    lines = _wrap(
        f"{problems} Run the first remedy (→), then the doctor again: it often fixes later "
        "problems too."
        if problems
        else "No problems."
    )
    return lines + (_wrap(warnings) if warnings else [])


def _wrap(text: str, width: int = _WIDEST) -> list[str]:
    # Paths and commands stay whole, so that they can be copied.
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)

"""Arguments of ``doctor``."""

from .common import add_parser

_EPILOG = """
Examples:
  all checks, with a remedy for each problem:
    resnest-d2 doctor
  for a program, {"checks": [{"group", "name", "status", "found", "remedy"}]}:
    resnest-d2 doctor --json
  where the command itself is missing:
    python -m resnest_d2_command doctor

Exit codes: 0 no problem, 1 problems, 2 unknown arguments.
"""


def add_commands(commands) -> None:
    parser = add_parser(commands, "doctor", "doctor", epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress, and print only problems")

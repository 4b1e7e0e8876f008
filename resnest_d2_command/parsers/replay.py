"""Arguments of ``replay``."""

from .common import add_json_option, add_parser

_EPILOG = """
FILE is written by a training when its loss is not finite. It has the batch, the weights and the
state of the random generators.

Examples:
  find the cause:
    %(prog)s runs/mine/nonfinite_0000003_rank0.pth
  on the CPU, for a program:
    %(prog)s runs/mine/nonfinite_0000003_rank0.pth --device cpu --json

Exit codes: 0 reproduced (the loss is not finite), 1 the loss is finite, 2 refused input.
"""


def add_commands(commands) -> None:
    parser = add_parser(commands, "replay", "replay.replay", epilog=_EPILOG)
    parser.add_argument("file", metavar="FILE", help="nonfinite_…pth of a run's OUTPUT_DIR")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, …; default: as in training")
    add_json_option(parser, "the findings")

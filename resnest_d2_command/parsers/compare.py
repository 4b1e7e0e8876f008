"""``compare``."""

from .common import add_data_options, add_parser

__all__ = ["add_commands"]

_EPILOG = """
BASELINE and OTHER are each the output folder of a run that was evaluated, a folder of such folders,
or a quoted pattern: runs of one model with different seeds. All are compared on the data that they
were evaluated on, which must be the same.

A gain's interval comes from drawing the images anew, the same for all runs, and the runs as well
where a side has several. With one run a side it knows the images alone, not the randomness of
training. Of many classes without a difference, one in twenty has a 95%% interval without 0.

DIR then holds comparison.md, comparison.json and gains.png.

Examples:
  two runs:
    %(prog)s runs/resnet50 runs/resnest50
  three seeds each, with a chart:
    %(prog)s 'runs/resnet50_*' 'runs/resnest50_*' --out comparison
  where the data has moved, for a script:
    %(prog)s runs/resnet50 runs/resnest50 --val-json val.json --val-images images --json --no-cost

Exit codes: 0 done, whichever is better; 1 a result could not be written; 2 refused input;
130 interrupted.
"""


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    parser = add_parser(commands, "compare", "compare.compare", epilog=_EPILOG)
    parser.add_argument("baseline", metavar="BASELINE", help="what to compare with")
    parser.add_argument("other", metavar="OTHER", help="whose gain it is")
    add_data_options(parser)
    parser.add_argument(
        "--resamples", type=int, default=1000, metavar="N", help="draws; default: %(default)s"
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.95,
        metavar="P",
        help="of the intervals, 0-1; default: %(default)s",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the draws; default: %(default)s"
    )
    parser.add_argument("--no-cost", action="store_true", help="do not measure what each costs")
    parser.add_argument(
        "--device", metavar="NAME", help="to measure cost on: cpu, cuda, …; default: a GPU if any"
    )
    parser.add_argument("--out", metavar="DIR", help="write the comparison and a chart there")
    parser.add_argument("--json", action="store_true", help="print comparison.json")
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar, and no tables but the verdicts"
    )

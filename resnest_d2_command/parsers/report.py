"""``report``."""

from .common import add_data_options, add_json_option, add_parser, add_quiet_option

__all__ = ["add_commands"]

_EPILOG = """
RUN is the output folder of a run that was evaluated, a folder of such folders, or a quoted pattern.
All must have been evaluated on the same data, and there are at most 8.

FILE is one page that needs no network and no other file: AP by size and by class, training curves,
precision and recall, kinds of mistakes, confusion matrices, the worst images and false positives,
differences of the configs, with --speed what each run costs. It needs jinja2
(pip install 'resnest-d2[report]').

Examples:
  a run:
    %(prog)s runs/mine --out report.html
  two side by side, with speed:
    %(prog)s runs/resnet50 runs/resnest50 --speed
  where the data has moved, for a script:
    %(prog)s runs/mine --val-json val.json --val-images images --score-threshold 0.3 --json

Exit codes: 0 done, 1 the file could not be written, 2 refused input, 130 interrupted.
"""


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    parser = add_parser(commands, "report", "report.report", epilog=_EPILOG)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="what to report on")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="default: %(default)s")
    add_data_options(parser)
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="of the detections that are shown and counted, 0-1; default: %(default)s",
    )
    parser.add_argument(
        "--num-images",
        type=int,
        default=12,
        metavar="N",
        help="images, and false positives of each run; default: %(default)s",
    )
    parser.add_argument("--speed", action="store_true", help="measure what each run costs, too")
    parser.add_argument(
        "--device", metavar="NAME", help="for --speed: cpu, cuda, …; default: a GPU if any"
    )
    add_json_option(parser, "the figures")
    add_quiet_option(parser)

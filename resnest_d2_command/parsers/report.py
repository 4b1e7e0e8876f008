"""Arguments of ``report``."""

from .common import (
    add_data_options,
    add_device_option,
    add_json_option,
    add_parser,
    add_quiet_option,
)

_EPILOG = """
RUN is the output folder of an evaluated run, a folder of such folders, or a quoted pattern. At most
8 runs, all evaluated on the same data.

FILE is one page that needs no network and no other file: AP by size and by class, training curves,
precision and recall, kinds of mistakes, confusion matrices, the worst images and false positives,
differences of the configs, and with --speed the cost of each run. For semantic segmentation it has
the IoU of each class, confusions and the worst images. It needs jinja2
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
    parser = add_parser(commands, "report", "report.report", epilog=_EPILOG)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="what to report on")
    add("--out", default="report.html", metavar="FILE", help="page to write; default: %(default)s")
    add_data_options(parser, "val", text="the {split} data, if it has moved")
    add(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="lowest score of the detections shown and counted, 0-1; default: %(default)s",
    )
    add(
        "--num-images",
        type=int,
        default=12,
        metavar="N",
        help="number of images, and of false positives of each detector; default: %(default)s",
    )
    add("--speed", action="store_true", help="also measure the cost of each run")
    add_device_option(parser, "for --speed: ")
    add_json_option(parser, "the figures")
    add_quiet_option(parser)

"""Arguments of ``compare``."""

from .common import add_data_options, add_device_option, add_parser

_EPILOG = """
BASELINE and OTHER are each the output folder of an evaluated run, a folder of such folders, or a
quoted pattern: runs of one model with different seeds. All must be evaluated on the same data.
Detectors are compared in AP, models for semantic segmentation in mIoU, classifiers in top-1.

The interval of a gain is computed by resampling the images, the same for all runs. Where a side has
several runs, their spread is added. With one run a side, the interval covers the choice of images,
not the randomness of training. Of many classes without a difference, one in twenty has a 95%%
interval without 0.

DIR then has comparison.md, comparison.json, gains.png and, with --more-baselines, equal_cost.png.

Examples:
  two runs:
    %(prog)s runs/resnet50 runs/resnest50
  three seeds each, with a chart:
    %(prog)s 'runs/resnet50_*' 'runs/resnest50_*' --out comparison
  the gain over ResNets of the same cost:
    %(prog)s 'runs/resnet50_*' 'runs/resnest50_*' --more-baselines 'runs/resnet101_*'
  where the data has moved, for a script:
    %(prog)s runs/resnet50 runs/resnest50 --val-json val.json --val-images images --json --no-cost

Exit codes: 0 done, whichever is better; 1 a result could not be written; 2 refused input;
130 interrupted.
"""


def add_commands(commands) -> None:
    parser = add_parser(commands, "compare", "compare.compare", epilog=_EPILOG)
    add = parser.add_argument
    add("baseline", metavar="BASELINE", help="run to compare with")
    add("other", metavar="OTHER", help="run whose gain is computed")
    add(
        "--more-baselines",
        nargs="+",
        default=[],
        metavar="RUN",
        help="baselines of other depths, for the gain at equal cost: over a line through them all",
    )
    add_data_options(parser, "val", text="the {split} data, if it has moved")
    add(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="number of resampled sets of images; default: %(default)s",
    )
    add(
        "--confidence",
        type=float,
        default=0.95,
        metavar="P",
        help="confidence level of the intervals, 0-1; default: %(default)s",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the resampling; default: %(default)s",
    )
    add("--no-cost", action="store_true", help="do not measure parameters, operations and latency")
    add_device_option(parser, "to measure cost on: ")
    add("--out", metavar="DIR", help="write the comparison and a chart there")
    add("--json", action="store_true", help="print comparison.json")
    add("--quiet", action="store_true", help="no progress bar, and print only the verdicts")

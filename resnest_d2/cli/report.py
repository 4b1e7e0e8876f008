"""``report``."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    REFUSALS,
    add_json_option,
    add_parser,
    add_quiet_option,
    not_written,
    refuse,
    say,
)
from .evaluated import add_data_options, cost_record, measure_costs, plain_values, read_runs

if TYPE_CHECKING:
    from ..analysis.analysed_runs import Study
    from ..benchmark import RunCost

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
    parser = add_parser(commands, "report", _report, epilog=_EPILOG)
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


def _report(args: argparse.Namespace) -> int:
    from ..analysis.analysed_runs import study_runs
    from ..benchmark import describe_environment
    from ..report.page import load_template, write_report

    try:
        load_template()  # before the work
        if args.num_images < 0:
            raise ValueError(f"--num-images must be at least 0, got {args.num_images}")
        if Path(args.out).is_dir():
            raise ValueError(f"--out must be a file, and {args.out} is a folder")
        runs = [run for path in args.runs for run in read_runs(path, args)]
        study = study_runs(runs, score_threshold=args.score_threshold)
        costs = None
        if args.speed:
            configs = {n: run.config for n, run in zip(study.names, study.runs, strict=True)}
            picture = study.runs[0].picture_size
            costs = measure_costs(configs, picture, args, advice="leave --speed out")
    except (*REFUSALS, ModuleNotFoundError) as error:
        return refuse(error)
    try:
        Path(args.out).absolute().parent.mkdir(parents=True, exist_ok=True)
        write_report(
            study,
            args.out,
            num_images=args.num_images,
            costs=costs,
            environment=describe_environment() if costs else None,
        )
    except OSError as error:
        return not_written(args.out, error)
    if args.json:
        print(json.dumps(_record(study, args.out, costs), indent=2))
    elif not args.quiet:
        size = Path(args.out).stat().st_size / 2**20
        say(f"{args.out}: {len(runs)} run{'s' * (len(runs) > 1)}, {size:.1f} MiB")
    return 0


def _record(study: "Study", file: str, costs: Mapping[str, "RunCost"] | None) -> dict[str, Any]:
    record = {
        "file": file,
        "score_threshold": study.score_threshold,
        "images": len(study.runs[0].truth.images),
        "runs": study.figures(),
    }
    if costs:
        record["cost"] = {name: cost_record(cost) for name, cost in costs.items()}
    return plain_values(record)

"""``report``."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import REFUSALS, not_written, refuse, say
from .evaluated import cost_record, measure_costs, read_runs

if TYPE_CHECKING:
    from ..analysis.analysed_runs import Study
    from ..benchmark import RunCost


def report(args: argparse.Namespace) -> int:
    from ..analysis.analysed_runs import study_runs
    from ..benchmark import describe_environment
    from ..report.page import load_template, write_report

    file = Path(args.out)
    try:
        load_template()  # fails before the work if jinja2 is missing
        if args.num_images < 0:
            raise ValueError(f"--num-images must be at least 0, got {args.num_images}")
        if file.is_dir():
            raise ValueError(f"--out must be a file, and {args.out} is a folder")
        runs = [run for path in args.runs for run in read_runs(path, args)]
        study = study_runs(runs, score_threshold=args.score_threshold)
        costs = None
        if args.speed:
            configs = {n: run.config for n, run in zip(study.names, study.runs, strict=True)}
            size = study.runs[0].image_size
            costs = measure_costs(configs, size, args, advice="leave --speed out")
    except (*REFUSALS, ModuleNotFoundError) as error:
        return refuse(error)
    environment = describe_environment() if costs else None
    options = {"num_images": args.num_images, "costs": costs, "environment": environment}
    try:
        file.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_report(study, file, **options)
    except OSError as error:
        return not_written(args.out, error)
    if args.json:
        print(json.dumps(_record(study, args.out, costs), indent=2))
    elif not args.quiet:
        size = file.stat().st_size / 2**20
        say(f"{args.out}: {len(runs)} run{'s' * (len(runs) > 1)}, {size:.1f} MiB")
    return 0


def _record(study: "Study", file: str, costs: Mapping[str, "RunCost"] | None) -> dict[str, Any]:
    from ..evaluation import plain_values

    record = {
        "file": file,
        **study.settings,
        "images": study.runs[0].num_images,
        "runs": study.figures(),
    }
    if costs:
        record["cost"] = {name: cost_record(cost) for name, cost in costs.items()}
    return plain_values(record)

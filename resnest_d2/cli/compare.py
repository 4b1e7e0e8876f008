"""``compare``."""

import argparse
import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import REFUSALS, add_parser, fail, refuse, say
from .evaluated import add_data_options, cost_record, measure_costs, plain_values, read_runs

if TYPE_CHECKING:
    from ..analysis.comparison import Comparison
    from ..benchmark import RunCost

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
    parser = add_parser(commands, "compare", _compare, epilog=_EPILOG)
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


def _compare(args: argparse.Namespace) -> int:
    try:
        return _run(args)
    except KeyboardInterrupt:
        fail("interrupted")
        return 130


def _run(args: argparse.Namespace) -> int:
    from ..analysis.comparison import compare_runs
    from ..analysis.comparison_text import comparison_text, verdict
    from ..benchmark import describe_environment
    from ..files import write_failure_reason

    try:
        sides = [read_runs(path, args) for path in (args.baseline, args.other)]
        if args.out:
            Path(args.out).mkdir(parents=True, exist_ok=True)
        compared = compare_runs(
            *sides,
            names=(_name(args.baseline), _name(args.other)),
            resamples=args.resamples,
            confidence=args.confidence,
            seed=args.seed,
        )
        costs = None
        if not args.no_cost:  # of the first run of each side, for a picture of the data's size
            configs = {"baseline": sides[0][0].config, "other": sides[1][0].config}
            picture = sides[0][0].picture_size
            costs = measure_costs(configs, picture, args, advice="--no-cost leaves it out")
    except (*REFUSALS, OSError) as error:
        return refuse(error)
    environment = describe_environment() if costs else None
    record = _record(compared, costs, environment)
    text = comparison_text(compared, costs)
    if environment:
        text += "\n\n" + ", ".join(f"{key} {value}" for key, value in environment.items())
    if args.out:
        try:
            _write(Path(args.out), compared, record, text)
        except OSError as error:
            reason, advice = write_failure_reason(error)
            return fail(f"{args.out} cannot be written to: {reason} ({advice})")
    if args.json:
        print(json.dumps(record, indent=2))
    else:
        say("\n\n".join(verdict(compared, task) for task in compared.tasks) if args.quiet else text)
    return 0


def _name(path: str) -> str:
    """What to call a side: its folder's name; of a pattern what stands before the wildcard."""
    last = Path(path).resolve().name
    return re.split(r"[*?\[]", last)[0].rstrip("_-. ") or last


def _write(folder: Path, compared: "Comparison", record: dict[str, Any], text: str) -> None:
    from ..draw.gains import plot_gains
    from ..files import writing

    title = f"{compared.other.name} against {compared.baseline.name}"
    note = (
        f"Gains with {100 * compared.confidence:.3g}% intervals, {compared.images} images, runs: "
        f"{len(compared.baseline.runs)} and {len(compared.other.runs)}. Filled: 0 is excluded."
    )
    plot_gains(compared, folder / "gains.png", title=title, note=note)
    for name, content in (
        ("comparison.md", f"{text}\n\n![Gains with their intervals](gains.png)\n"),
        ("comparison.json", json.dumps(record, indent=1) + "\n"),
    ):
        with writing(folder / name) as file:
            file.write(content.encode())


def _record(
    compared: "Comparison",
    costs: dict[str, "RunCost"] | None,
    environment: dict[str, str] | None,
) -> dict[str, Any]:
    """What ``--json`` prints."""
    from ..analysis.comparison_text import verdict

    runs = {}
    for name, side in (("baseline", compared.baseline), ("other", compared.other)):
        aps = {task: getattr(found, f"{name}_aps") for task, found in compared.tasks.items()}
        runs[name] = {
            "name": side.name,
            "backbone": side.backbone,
            "runs": [
                {"folder": folder, "AP": {task: values[number] for task, values in aps.items()}}
                for number, folder in enumerate(side.runs)
            ],
        }
    record = {
        "runs": runs,
        "tasks": {
            task: {
                "verdict": verdict(compared, task),
                "metrics": {k: dataclasses.asdict(v) for k, v in found.metrics.items()},
                "classes": {k: dataclasses.asdict(v) for k, v in found.classes.items()},
            }
            for task, found in compared.tasks.items()
        },
        "network_changes": compared.network,
        "recipe_changes": compared.changes,
        "settings": {
            key: getattr(compared, key) for key in ("images", "resamples", "confidence", "seed")
        },
    }
    if costs:
        record["cost"] = {name: cost_record(cost) for name, cost in costs.items()}
        record["environment"] = environment
    return plain_values(record)

"""``compare``."""

import argparse
import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import REFUSALS, fail, refuse, say
from .evaluated import cost_record, measure_costs, plain_values, read_runs

if TYPE_CHECKING:
    from ..analysis.comparison import Comparison
    from ..benchmark import RunCost

__all__ = ["compare"]


def compare(args: argparse.Namespace) -> int:
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

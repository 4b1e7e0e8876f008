"""``compare``."""

import argparse
import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_text
from .common import REFUSALS, not_written, refuse, say
from .evaluated import cost_record, measure_costs, read_runs

if TYPE_CHECKING:
    from ..analysis.comparing.comparison import Comparison
    from ..analysis.comparing.equal_cost import EqualCostGain
    from ..benchmark import RunCost


def compare(args: argparse.Namespace) -> int:
    from ..analysis.comparing.comparison import compare_runs
    from ..analysis.comparing.comparison_text import comparison_text, verdict
    from ..analysis.comparing.equal_cost import gains_at_equal_cost
    from ..analysis.run_folder import distinct_names
    from ..benchmark import describe_environment

    try:
        paths = [args.baseline, args.other, *args.more_baselines]
        baseline, other, *more = sides = [read_runs(path, args) for path in paths]
        if args.more_baselines and args.no_cost:
            raise ValueError("--more-baselines are compared at equal cost: leave --no-cost out")
        if args.out:
            Path(args.out).mkdir(parents=True, exist_ok=True)
        compared = compare_runs(
            baseline,
            other,
            more_baselines=more,
            names=distinct_names([*map(_named_path, paths)]),
            resamples=args.resamples,
            confidence=args.confidence,
            seed=args.seed,
        )
        costs, equal_cost = None, {}
        if not args.no_cost:  # of the first run of each side
            names = ["baseline", "other", *(f"baseline {n + 2}" for n in range(len(more)))]
            configs = {name: side[0].config for name, side in zip(names, sides, strict=True)}
            size = baseline[0].image_size
            costs = measure_costs(configs, size, args, advice="--no-cost leaves it out")
            if more:
                equal_cost = gains_at_equal_cost(compared, [*costs.values()])
    except (*REFUSALS, OSError) as error:
        return refuse(error)
    environment = describe_environment() if costs else {}
    record = _record(compared, costs, environment, equal_cost)
    text = comparison_text(compared, costs, equal_cost)
    if environment:
        text += "\n\n" + ", ".join(f"{key} {value}" for key, value in environment.items())
    try:
        if args.out:
            _write(Path(args.out), compared, record, text, equal_cost)
    except OSError as error:
        return not_written(args.out, error)
    if args.json:
        print(json.dumps(record, indent=2))
    else:
        say("\n\n".join(verdict(compared, task) for task in compared.tasks) if args.quiet else text)
    return 0


def _named_path(path: str) -> Path:
    """What names a side: its folder; for a pattern, what is before the first wildcard."""
    path = Path(path).resolve()
    return path.with_name(re.split(r"[*?\[]", path.name)[0].rstrip("_-. ") or path.name)


def _write(
    folder: Path,
    compared: "Comparison",
    record: dict[str, Any],
    text: str,
    equal_cost: dict[str, dict[str, "EqualCostGain"]],
) -> None:
    from ..draw.cost_lines import plot_equal_cost
    from ..draw.gains import plot_gains

    title = f"{compared.other.name} against {compared.baseline.name}"
    note = (
        f"Gains with {100 * compared.confidence:.3g}% intervals, {compared.images} images, runs: "
        f"{len(compared.baseline.runs)} and {len(compared.other.runs)}. Filled: 0 is excluded."
    )
    plot_gains(compared, folder / "gains.png", title=title, note=note)
    text += "\n\n![Gains with their intervals](gains.png)\n"
    if equal_cost:
        note = "Each dot is a run. The line is fitted through the means of the baselines."
        plot_equal_cost(compared, equal_cost, folder / "equal_cost.png", title=title, note=note)
        text += "\n![Metrics over costs](equal_cost.png)\n"
    write_text(folder / "comparison.md", text)
    write_text(folder / "comparison.json", json.dumps(record, indent=1) + "\n")


def _record(
    compared: "Comparison",
    costs: dict[str, "RunCost"] | None,
    environment: dict[str, str],
    equal_cost: dict[str, dict[str, "EqualCostGain"]],
) -> dict[str, Any]:
    """The content of ``comparison.json``."""
    from ..analysis.comparing.comparison_text import verdict
    from ..analysis.task_texts import TASKS
    from ..evaluation import plain_values

    runs = {}
    for name, side in (("baseline", compared.baseline), ("other", compared.other)):
        folders = [{"folder": folder} for folder in side.runs]
        for task, found in compared.tasks.items():  # such as {"AP": {"bbox": …, "segm": …}}
            for record, value in zip(folders, getattr(found, f"{name}_values"), strict=True):
                record.setdefault(TASKS[task].main, {})[task] = value
        runs[name] = {"name": side.name, "backbone": side.backbone, "runs": folders}
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
        "network_changes": _without_folders(compared.network),
        "recipe_changes": _without_folders(compared.changes),
        "settings": {
            key: getattr(compared, key) for key in ("images", "resamples", "confidence", "seed")
        },
    }
    if costs:
        record["cost"] = {name: cost_record(cost) for name, cost in costs.items()}
        record["environment"] = environment
    if equal_cost:
        record["equal_cost"] = {
            task: {title: dataclasses.asdict(gain) for title, gain in gains.items()}
            for task, gains in equal_cost.items()
        }
    return plain_values(record)


def _without_folders(value: Any) -> Any:
    """Values of configs, in which a path is its name."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value

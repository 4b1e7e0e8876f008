"""``benchmark``."""

import argparse
import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import check_choice
from ..files import write_text
from .common import REFUSALS, not_written, refuse

_NO_SETTINGS = ("run", "out", "json", "quiet")  # they do not change what is measured


_Measured = tuple[str, dict[str, Any], Callable[[str], list[str]], Callable[..., None]]
"""Results: their title, for JSON, as tables of a form of ``tabulate``, as a chart."""


def benchmark(args: argparse.Namespace) -> int:
    from ..benchmark import describe_environment

    folder = Path(args.out) if args.out else None
    try:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return not_written(args.out, error)
    environment = describe_environment()
    note = ", ".join(f"{key} {value}" for key, value in environment.items())
    try:
        measure = _compare if args.scaling is None else _scale
        title, results, tables, plot = measure(args)
    except (*REFUSALS, ModuleNotFoundError) as error:
        return refuse(error)
    settings = {k: v for k, v in vars(args).items() if k not in _NO_SETTINGS}
    record = {"settings": settings, "environment": environment, **results}

    def text(form: str) -> str:
        return "\n\n".join(filter(None, (*tables(form), title, note)))

    try:
        if folder:
            write_text(folder / "benchmark.json", json.dumps(record, indent=1) + "\n")
            write_text(folder / "benchmark.md", text("github") + "\n")
            if args.runs:
                plot(folder / "benchmark.png", title=title, note=note)
    except OSError as error:
        return not_written(args.out, error)
    print(json.dumps(record, indent=2) if args.json else text("simple"))
    return 0


def _compare(args: argparse.Namespace) -> _Measured:
    from ..benchmark import measure, measurement_table, part_table
    from ..draw import plot_measurements
    from ..modeling import VARIANTS

    networks = args.networks or list(VARIANTS)
    reference = args.reference or networks[-1]
    measured = measure(
        networks,
        size=tuple(args.size),
        batch=args.batch,
        training=args.training,
        classifier=args.classifier or not args.networks,
        device=args.device,
        runs=args.runs,
        reference=reference,
    )
    return (
        _title(args, ", " + " x ".join(map(str, (args.batch, 3, *args.size)))),
        {"measurements": [_record(m) for m in measured]},
        lambda form: [
            measurement_table(measured, reference, form=form),
            part_table(measured, form=form),
        ],
        partial(plot_measurements, measured),
    )


def _scale(args: argparse.Namespace) -> _Measured:
    from ..benchmark import (
        QUANTITIES,
        measure_processes,
        measure_scaling,
        process_table,
        scaling_of_processes,
        scaling_table,
    )
    from ..draw import plot_scalings

    if args.networks or args.runs < 1:
        raise ValueError(
            "--scaling has its own networks and needs at least one run, got "
            f"{' '.join(args.networks) or 'no network'}, {args.runs} runs"
        )
    known = (*QUANTITIES, "processes")
    quantities = args.scaling or known
    for quantity in quantities:
        check_choice("a quantity", quantity, known)
    how = {"device": args.device, "runs": args.runs}
    scalings = [
        measure_scaling(quantity, training=args.training, **how)
        for quantity in quantities
        if quantity != "processes"
    ]
    times = measure_processes(**how) if "processes" in quantities else None
    if times:
        scalings.append(scaling_of_processes(times))
    return (
        _title(args, f" of {'two images' if args.training else 'one image'}"),
        {"scalings": [_record(s) for s in scalings], "processes": times and _record(times)},
        lambda form: [
            scaling_table(scalings, form=form),
            process_table(times, form=form) if times else "",
        ],
        partial(plot_scalings, scalings),
    )


def _title(args: argparse.Namespace, inputs: str) -> str:
    kind = "training step" if args.training else "inference"
    return f"{kind}{inputs}, {args.device}, {args.runs} runs in turn"


def _record(measured) -> dict[str, Any]:
    """A dataclass's fields and properties; a property is None where nothing was timed."""
    properties = [k for k, v in vars(type(measured)).items() if isinstance(v, property)]
    timed = getattr(measured, "latency_ms", True)
    derived = {name: getattr(measured, name) if timed else None for name in properties}
    return {**dataclasses.asdict(measured), **derived}

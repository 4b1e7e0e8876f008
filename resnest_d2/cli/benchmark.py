"""``benchmark``."""

import argparse
import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import check_choice
from ..files import writing
from .common import REFUSALS, not_written, refuse

__all__ = ["benchmark"]

_NO_SETTINGS = ("run", "out", "json", "quiet")  # of the measurement


def benchmark(args: argparse.Namespace) -> int:
    from ..benchmark import describe_environment

    try:
        if args.out:
            Path(args.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return not_written(args.out, error)
    environment = describe_environment()
    note = ", ".join(f"{key} {value}" for key, value in environment.items())
    try:
        measured = _compare(args) if args.scaling is None else _scale(args)
    except (*REFUSALS, ModuleNotFoundError) as error:
        return refuse(error)
    record = {
        "settings": {k: v for k, v in vars(args).items() if k not in _NO_SETTINGS},
        "environment": environment,
        **measured.record,
    }

    def text(form: str) -> str:
        return "\n\n".join(filter(None, (*measured.tables(form), measured.title, note)))

    if args.out:
        folder = Path(args.out)
        try:
            for name, content in (
                ("benchmark.json", json.dumps(record, indent=1)),
                ("benchmark.md", text("github")),
            ):
                with writing(folder / name) as file:
                    file.write(f"{content}\n".encode())
            if args.runs:
                measured.plot(folder / "benchmark.png", title=measured.title, note=note)
        except OSError as error:
            return not_written(args.out, error)
    print(json.dumps(record, indent=2) if args.json else text("simple"))
    return 0


class _Measured(NamedTuple):
    """What was measured: for JSON, as tables of a form of ``tabulate``, as a chart."""

    title: str
    record: dict[str, Any]
    tables: Callable[[str], list[str]]
    plot: Callable[..., None]


def _compare(args: argparse.Namespace) -> _Measured:
    from ..benchmark import measure, measurement_table, part_table
    from ..draw import plot_measurements
    from ..modeling import VARIANTS

    networks = args.networks or list(VARIANTS)
    measured = measure(
        networks,
        size=tuple(args.size),
        batch=args.batch,
        training=args.training,
        classifier=args.classifier or not args.networks,
        device=args.device,
        runs=args.runs,
        reference=args.reference,
    )
    reference = args.reference or networks[-1]
    shape = " x ".join(map(str, (args.batch, 3, *args.size)))
    return _Measured(
        f"{_kind(args)}, {shape}, {args.device}, {args.runs} runs in turn",
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
            "--scaling has its own networks and at least one run, got "
            f"{' '.join(args.networks) or 'no network'}, {args.runs} runs"
        )
    quantities = args.scaling or [*QUANTITIES, "processes"]
    for quantity in quantities:
        check_choice("a quantity", quantity, (*QUANTITIES, "processes"))
    how = {"device": args.device, "runs": args.runs}
    scalings = [
        measure_scaling(quantity, training=args.training, **how)
        for quantity in quantities
        if quantity != "processes"
    ]
    times = measure_processes(**how) if "processes" in quantities else None
    if times:
        scalings.append(scaling_of_processes(times))
    return _Measured(
        f"{_kind(args)} of {'two images' if args.training else 'one image'}, {args.device}, "
        f"{args.runs} runs in turn",
        {
            "scalings": [_record(s) for s in scalings],
            "processes": times and _record(times),
        },
        lambda form: [
            scaling_table(scalings, form=form),
            process_table(times, form=form) if times else "",
        ],
        partial(plot_scalings, scalings),
    )


def _kind(args: argparse.Namespace) -> str:
    return "training step" if args.training else "inference"


def _record(measured) -> dict[str, Any]:
    """A dataclass's fields and properties; None where nothing was timed."""
    properties = [k for k, v in vars(type(measured)).items() if isinstance(v, property)]
    timed = getattr(measured, "latency_ms", True)
    derived = {name: getattr(measured, name) if timed else None for name in properties}
    return {**dataclasses.asdict(measured), **derived}

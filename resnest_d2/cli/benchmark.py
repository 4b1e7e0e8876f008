"""``benchmark``."""

import argparse
import dataclasses
import json
from pathlib import Path

from .common import REFUSALS, add_parser, refuse

__all__ = ["add_commands"]

_EPILOG = """
NETWORK is [SOURCE:]NAME[+SETTING]…, NAME a ResNeSt variant such as resnest50, resnet50 or resnet101
(Detectron2's), or a packaged config: the whole detector. SOURCE is official (needs resnest==0.0.5)
or timm. Settings: channels_last, bfloat16, compiled; in inference optimized, float32; in training
recompute_norm, checkpointed.

Examples:
  parameters and multiply-adds of all variants as classifiers at 224 x 224, and their latency:
    %(prog)s
  backbones against the official implementation:
    %(prog)s resnest50+optimized resnest50 resnet50 official:resnest50 --size 640 800
  a detector by part:
    %(prog)s mask_rcnn_resnest50_fpn+optimized mask_rcnn_resnest50_fpn --size 800 1088
  training steps, time and memory:
    %(prog)s resnest50+recompute_norm+bfloat16 resnest50 official:resnest50 --training \\
        --size 320 416 --batch 2

All are measured in one process, in turn. Exit codes: 0 done, 1 failed, 2 refused input.
"""


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    parser = add_parser(commands, "benchmark", _benchmark, epilog=_EPILOG)
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help="what to measure; default: all variants, as classifiers",
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=(224, 224), metavar=("H", "W"), help="224 224"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images; %(default)s")
    parser.add_argument(
        "--training", action="store_true", help="forward and backward pass, not inference"
    )
    parser.add_argument(
        "--classifier", action="store_true", help="with 1000 classes, not feature maps"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda; %(default)s")
    parser.add_argument(
        "--runs", type=int, default=10, metavar="N", help="timed runs of each; %(default)s; 0: none"
    )
    parser.add_argument(
        "--reference", metavar="NETWORK", help="whose time the ratios are of; default: the last"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write benchmark.json, benchmark.md and benchmark.png"
    )
    parser.add_argument("--json", action="store_true", help="print the measurements as JSON")


def _benchmark(args: argparse.Namespace) -> int:
    from ..benchmark import describe_environment, measure
    from ..modeling import VARIANTS
    from ..visualize import measurement_table, part_table, plot_measurements

    networks = args.networks or list(VARIANTS)
    classifier = args.classifier or not args.networks
    try:
        measured = measure(
            networks,
            size=tuple(args.size),
            batch=args.batch,
            training=args.training,
            classifier=classifier,
            device=args.device,
            runs=args.runs,
            reference=args.reference,
        )
    except (*REFUSALS, ModuleNotFoundError) as error:
        return refuse(error)
    reference = args.reference or networks[-1]
    environment = describe_environment()
    shape = " x ".join(map(str, (args.batch, 3, *args.size)))
    kind = "training step" if args.training else "inference"
    what = f"{kind}, {shape}, {args.device}, {args.runs} runs in turn"
    note = ", ".join(f"{key} {value}" for key, value in environment.items())
    record = {
        "settings": {k: v for k, v in vars(args).items() if k not in ("run", "out", "json")},
        "environment": environment,
        "measurements": [_record(m) for m in measured],
    }

    def text(form: str) -> str:
        whole = measurement_table(measured, reference, form=form)
        parts = part_table(measured, form=form)
        return "\n\n".join(filter(None, (whole, parts, what, note)))

    if args.out:
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "benchmark.json").write_text(json.dumps(record, indent=1) + "\n")
        (folder / "benchmark.md").write_text(text("github") + "\n", encoding="utf-8")
        if args.runs:
            plot_measurements(measured, folder / "benchmark.png", title=what, note=note)
    print(json.dumps(record, indent=2) if args.json else text("simple"))
    return 0


def _record(measurement) -> dict:
    derived = {"median_ms": None, "ratio": None}
    if measurement.latency_ms:
        derived = {"median_ms": measurement.median_ms, "ratio": measurement.ratio}
    return {**dataclasses.asdict(measurement), **derived}

#!/usr/bin/env python
"""Time our eager backbones against the official eager implementation (the package ``resnest``)."""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from tabulate import tabulate  # noqa: E402

from resnest_d2 import ResNeSt  # noqa: E402
from resnest_d2.benchmark import compare_latency, describe_environment  # noqa: E402


def official_features(name: str):
    """The official classifier up to its last stage."""
    try:
        import resnest.torch as official
    except ModuleNotFoundError:
        sys.exit("the reference is missing: pip install resnest==0.0.5")
    model = getattr(official, name)().eval()
    return torch.nn.Sequential(*list(model.children())[:-2])  # without avgpool and fc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnest50", "resnest101"], metavar="NAME")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 800), metavar=("H", "W"))
    parser.add_argument("--runs", type=int, default=10)
    args = parser.parse_args()
    image = torch.randn(1, 3, *args.size)
    rows = []
    for name in args.models:
        ours = ResNeSt.from_variant(name, out_features=("res5",)).eval()
        reference = official_features(name)
        with torch.inference_mode():
            times = compare_latency(
                lambda model=ours: model(image),
                lambda model=reference: model(image),
                runs=args.runs,
            )
        rows.append(
            (
                name,
                statistics.median(times.ours_ms),
                statistics.median(times.reference_ms),
                times.ratio,
                f"{min(times.ratios):.2f}-{max(times.ratios):.2f}",
            )
        )
    headers = ("backbone", "ours, ms", "official, ms", "official / ours", "range")
    print(tabulate(rows, headers, floatfmt=("", ".0f", ".0f", ".2f", "")))
    print(f"eager float32, batch 1, {args.size[0]}x{args.size[1]}, {args.runs} alternated runs")
    print(", ".join(f"{key} {value}" for key, value in describe_environment().items()))


if __name__ == "__main__":
    main()

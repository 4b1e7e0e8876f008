#!/usr/bin/env python
"""Time COCO evaluation, from results in memory to numbers, against pycocotools."""

import argparse
import os
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tabulate import tabulate  # noqa: E402

from resnest_d2.benchmark import compare_evaluators, describe_environment  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="of each image")
    parser.add_argument("--runs", type=int, default=3, help="of each implementation and task")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn objects and detections")
    args = parser.parse_args()
    rows = [
        (
            found.task,
            statistics.median(found.times.ours_ms) / 1000,
            statistics.median(found.times.reference_ms) / 1000,
            found.times.ratio,
            f"{min(found.times.ratios):.1f}-{max(found.times.ratios):.1f}",
            found.numbers["hotcoco"][0],
            f"{found.difference:.1e}",
        )
        for found in compare_evaluators(
            args.images, args.detections, runs=args.runs, seed=args.seed
        )
    ]
    headers = ("task", "hotcoco, s", "pycocotools, s", "ratio", "range", "AP, 0-1", "difference")
    print(tabulate(rows, headers, floatfmt=("", ".2f", ".1f", ".1f", "", ".4f", "")))
    print(
        f"{args.images} images x {args.detections} detections, seed {args.seed}, {args.runs} "
        "alternated runs after one untimed, ground truth already loaded"
    )
    versions = {name: version(name) for name in ("hotcoco", "pycocotools", "numpy")}
    described = describe_environment() | versions | {"CPUs": os.cpu_count()}
    print(", ".join(f"{key} {value}" for key, value in described.items()))


if __name__ == "__main__":
    main()

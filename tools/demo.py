#!/usr/bin/env python
"""Train a small Mask R-CNN on the embedded sample set, evaluate it, draw its predictions."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from resnest_d2.cli.demo import run_demo  # noqa: E402

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", default="output/demo", metavar="DIR")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE …")
    arguments = parser.parse_args()
    run_demo(arguments.output_dir, opts=tuple(arguments.opts))

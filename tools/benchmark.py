#!/usr/bin/env python
"""Measure networks side by side: the same as ``resnest-d2 benchmark``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from resnest_d2_command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))

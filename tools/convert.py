#!/usr/bin/env python
"""Rename weights between formats: the ``resnest-d2 convert`` command, for a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from resnest_d2_command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))

#!/usr/bin/env python
"""Train or evaluate a detector: the ``resnest-d2 train`` command, for a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from resnest_d2_command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

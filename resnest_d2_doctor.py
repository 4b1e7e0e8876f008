"""The old name of ``python -m resnest_d2_command doctor``."""

import sys
import warnings

from resnest_d2_command import main as command

warnings.warn("resnest_d2_doctor is now resnest_d2_command", DeprecationWarning, stacklevel=2)

if __name__ == "__main__":
    sys.exit(command(["doctor", *sys.argv[1:]]))

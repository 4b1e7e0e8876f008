"""What each command of ``resnest-d2`` does, one module a command: arguments in, one call, text out.

The arguments themselves are in ``resnest_d2_command.parsers``. Exit codes: 0 done, 1 failed,
2 refused input, 130 interrupted, 75 a training that SIGTERM or SIGUSR1 has stopped after it had
saved, or before there was something to save: ``--resume`` goes on with it.
"""

import argparse
import importlib
import os
import sys

from ..progress import show_progress
from .common import fail, interrupted

__all__ = ["run_command"]


def run_command(args: argparse.Namespace) -> int:
    """Run a command and return its exit code.

    Args:
        args: parsed; ``run`` names a module of this room and a function in it.
    """
    module, function = args.run.split(".")
    try:
        run = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        with show_progress(not getattr(args, "quiet", False)):
            code = run(args)
        sys.stdout.flush()  # here, where a reader that has gone is no bug
        return code
    except KeyboardInterrupt:
        return interrupted()
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a folder that must not be read, a disk that fails
        return fail(error)

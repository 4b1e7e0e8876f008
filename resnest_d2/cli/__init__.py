"""The commands of ``resnest-d2``, one module each: parsed arguments in, one call, text out.

Their arguments and exit codes are in ``resnest_d2_command.parsers``.
"""

import argparse
import importlib
import os
import sys

from ..progress import show_progress
from ..text import add_names
from .common import fail, interrupted

__all__ = ["run_command"]


def run_command(args: argparse.Namespace) -> int:
    """Run a command and return its exit code.

    Args:
        args: parsed; ``run`` is a module of this package and a function in it.
    """
    module, function = args.run.split(".")
    given = [value if isinstance(value, list) else [value] for value in vars(args).values()]
    add_names(text for value in given for text in value if isinstance(text, str))
    try:
        run = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        with show_progress(not getattr(args, "quiet", False)):
            code = run(args)
        sys.stdout.flush()  # here, where a BrokenPipeError is expected
        return code
    except KeyboardInterrupt:
        return interrupted()
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # no permission, a disk that fails
        return fail(error)

"""``study``."""

import argparse
import shlex

from .common import REFUSALS, refuse, say


def study(args: argparse.Namespace) -> int:
    from ..study import read_study, run_study

    try:
        if args.jobs < 1:
            raise ValueError(f"--jobs must be at least 1, got {args.jobs}")
        plan = read_study(args.file, args.out)
        if args.dry_run:
            for command in plan.commands():
                say(shlex.join(["resnest-d2", *command]))
            return 0
        return run_study(plan, jobs=args.jobs, say=lambda text: print(text, flush=True))
    except REFUSALS as error:
        return refuse(error)

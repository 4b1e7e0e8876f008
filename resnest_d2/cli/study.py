"""``study``."""

import argparse
import functools
import json
import shlex
import sys

from .common import REFUSALS, refuse, say


def study(args: argparse.Namespace) -> int:
    from ..study import read_study, run_study, study_record

    try:
        if args.jobs < 1:
            raise ValueError(f"--jobs must be at least 1, got {args.jobs}")
        plan = read_study(args.file, args.out)
        if args.dry_run:
            for command in plan.commands():
                say(shlex.join(["resnest-d2", *command]))
            return 0
        stream = sys.stderr if args.json else sys.stdout
        show = functools.partial(print, file=stream, flush=True)
        code = run_study(plan, jobs=args.jobs, quiet=args.quiet, say=show)
    except REFUSALS as error:
        return refuse(error)
    if args.json:
        print(json.dumps(study_record(plan), indent=2))
    return code

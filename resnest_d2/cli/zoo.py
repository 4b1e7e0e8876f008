"""``zoo download``. ``zoo list`` and ``zoo show`` are in ``resnest_d2_command.zoo``."""

import argparse
import json

from .common import REFUSALS, fail, refuse, say


def download(args: argparse.Namespace) -> int:
    from ..model_zoo import DownloadError, fetch

    try:
        path = fetch(args.name, sha256=args.sha256, progress=not args.quiet)
    except REFUSALS as error:
        return refuse(error)
    except DownloadError as error:
        return fail(error)
    say(json.dumps({"file": str(path)}, indent=2) if args.json else path)
    return 0

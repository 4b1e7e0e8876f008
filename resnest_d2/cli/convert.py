"""``convert``: weights under other names."""

import argparse
import sys
from typing import TYPE_CHECKING

from ..errors import error_text
from .common import REFUSALS, not_written, refuse, say

if TYPE_CHECKING:
    from ..checkpoint import StoredWeights


def convert(args: argparse.Namespace) -> int:
    from ..checkpoint import convert_file, describe
    from ..model_zoo import WEIGHTS

    def find_license(sha256: str) -> str | None:
        known = (file for file in WEIGHTS.values() if file.sha256)
        return next((file.license for file in known if sha256.startswith(file.sha256)), None)

    try:
        converted = convert_file(
            args.source,
            args.target,
            source_format=args.source_format,
            target_format=args.target_format,
            trust_pickle=args.trust_pickle,
            overwrite=args.overwrite,
            find_license=find_license,
        )
    except REFUSALS as error:
        return refuse(error)
    except OSError as error:  # a full disk, a read-only folder
        return not_written(args.target, error)
    what = describe(converted.tensors, args.source_format or converted.format)
    say(f"{args.source} -> {args.target}: {what}, {args.target_format} names")
    problem = _missing(converted, args.source_format or converted.format)
    if problem:
        say(f"resnest-d2: warning: {args.source} is not whole: {problem}", file=sys.stderr)
    return 3 if problem else 0


def _missing(stored: "StoredWeights", format: str) -> str:
    """What a file lacks by its config, or by its other names; "" if nothing."""
    from ..checkpoint import RECORD_KEY, missing_parts
    from ..model_zoo.trained import check_network, recorded_config

    if RECORD_KEY in stored.metadata:
        try:
            cfg = recorded_config(stored.metadata[RECORD_KEY], stored.path)
        except ValueError:  # of another version
            cfg = None
        if cfg is not None:
            try:
                check_network(cfg, stored)
            except ValueError as error:
                return error_text(error)
            return ""
    lacking = missing_parts(stored.tensors, format)
    more = f", … ({len(lacking)} in all)" if len(lacking) > 5 else ""
    return f"it lacks {', '.join(lacking[:5])}{more}" if lacking else ""

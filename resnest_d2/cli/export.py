"""``export``."""

import argparse
import dataclasses
import json
import statistics

from .common import REFUSALS, fail, not_written, refuse, say


def export(args: argparse.Namespace) -> int:
    from ..export import export_checkpoint
    from ..files import is_write_failure

    try:
        export = export_checkpoint(
            args.source,
            args.target,
            config=args.config_file,
            format=args.format,
            part=args.part,
            images=args.images,
            score_threshold=args.score_threshold,
            verify=not args.no_verify,
            overwrite=args.overwrite,
        )
    except (*REFUSALS, ModuleNotFoundError) as error:
        return refuse(error)
    except Exception as error:
        if is_write_failure(error):
            return not_written(args.target, error)
        if isinstance(error, RuntimeError):
            return fail(error)
        raise
    times = {}
    if args.runs:
        from ..benchmark import measure_exported

        try:
            times = measure_exported(
                args.source,
                export.file,
                export.example,
                config=args.config_file,
                format=args.format,
                runs=args.runs,
            )
        except ValueError as error:
            return refuse(error)
    latency = {name: statistics.median(own) for name, own in times.items()}
    agreement = export.agreement
    if args.json:
        record = {
            "file": str(export.file),
            "metadata": export.metadata,
            "agreement": agreement and dataclasses.asdict(agreement),
            "latency_ms": latency,
        }
        print(json.dumps(record, indent=2))
        return 0
    if args.quiet:
        return 0
    size = export.file.stat().st_size / 2**20
    say(f"{export.file}: {export.metadata['part']}, {export.metadata['format']}, {size:.1f} MiB")
    say(f"  {agreement}" if agreement else "  not verified")
    if latency:
        size = " x ".join(map(str, export.example.shape[1:]))
        listed = ", ".join(f"{name} {ms:.1f} ms" for name, ms in latency.items())
        say(f"  {size}, median of {args.runs} runs in turn: {listed}")
    return 0

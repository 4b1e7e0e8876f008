"""``predict``."""

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from ..text import printable
from .common import REFUSALS, fail, interrupted, refuse, say

if TYPE_CHECKING:
    from ..predict.many_files import FilePredictions

_LISTED = 20  # files


def predict(args: argparse.Namespace) -> int:
    from ..files import write_failure_reason
    from ..predict.many_files import predict_files
    from ..predict.predictor import Predictor

    try:
        predictor = Predictor(
            args.checkpoint,
            config=args.config_file,
            device=args.device,
            score_threshold=args.score_threshold,
            optimize=args.optimize,
            tta=args.tta,
        )
    except (*REFUSALS, OSError) as error:
        return refuse(error)
    try:
        done = predict_files(
            predictor,
            args.sources,
            args.out,
            batch_size=args.batch_size,
            picture_format=args.format,
            progress=not args.quiet,
        )
    except REFUSALS as error:
        return refuse(error)
    except KeyboardInterrupt:
        return interrupted("the same command goes on")
    except (MemoryError, RuntimeError) as error:
        from ..engine.diagnosis.run_errors import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        return fail("the memory is full (the same command goes on with a lower --batch-size)")
    except OSError as error:
        reason, advice = write_failure_reason(error)
        return fail(
            f"{args.out} cannot be written to: {reason} ({advice}, and the same command goes on)"
        )
    if args.json:
        print(json.dumps({**dataclasses.asdict(done), "folder": str(done.folder)}, indent=2))
    else:
        _show(done, args.quiet, label_maps=predictor.segments)
    return 1 if done.failed else 0


def _show(done: "FilePredictions", quiet: bool, *, label_maps: bool) -> None:
    if not quiet:
        before = f", {done.earlier} had been before" if done.earlier else ""
        say(f"{done.predicted} files predicted{before}, {len(done.failed)} failed")
        found = f"{done.instances} instances in predictions.json, predictions.csv"
        if label_maps:
            found = "label maps in labels, the areas of their classes in predictions.csv"
        elif done.instances is None:
            found = "the results are in predictions.csv"
        say(f"{done.folder}: {found}")
        for name, note in list(done.notes.items())[:_LISTED]:
            say(printable(f"note: {name}: {note}"), file=sys.stderr)
    for name, reason in list(done.failed.items())[:_LISTED]:
        say(printable(f"failed: {name}: {reason}"), file=sys.stderr)
    if len(done.failed) > _LISTED:
        say(f"all {len(done.failed)} that failed: {done.folder / 'failed.csv'}", file=sys.stderr)

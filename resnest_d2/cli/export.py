"""``export``."""

import argparse
import dataclasses
import json
import statistics

from .common import (
    CHECKPOINT,
    REFUSALS,
    add_json_option,
    add_model_config_option,
    add_parser,
    add_quiet_option,
    fail,
    not_written,
    refuse,
    say,
)

__all__ = ["add_commands"]

_EPILOG = """
The file takes one image, RGB (3, H, W), float32, 0-255, of any size, and normalises it itself.
Its outputs: boxes (N, 4) in pixels, scores, classes and, where the model has them, masks (N, H, W).
Class names and the size to resize pictures to are in its metadata. It runs with onnxruntime alone,
or with torch and torchvision. A RetinaNet as torch-export gives boxes and scores of all anchors.

Before the file gets its name, another process runs it on images, and boxes, scores, classes and
masks must be the model's.

Examples:
  a detector for ONNX Runtime, checked on pictures of yours:
    %(prog)s runs/mine model.onnx --format onnx --images photos/*.jpg
  for torch.jit.load:
    %(prog)s runs/mine/model_final.pth model.pt --format torchscript
  its backbone with the FPN, for torch.export.load:
    %(prog)s runs/mine backbone.pt2 --format torch-export --part backbone

Exit codes: 0 done, 1 failed (the file differs, or cannot be written), 2 refused input.
"""


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    parser = add_parser(commands, "export", _export, epilog=_EPILOG)
    parser.add_argument("source", metavar="CKPT", help=CHECKPOINT)
    add_model_config_option(parser)
    parser.add_argument("target", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--format", required=True, metavar="F", help="torchscript, onnx or torch-export"
    )
    parser.add_argument(
        "--part",
        default="detector",
        metavar="P",
        help="detector (the default), backbone (with its FPN) or bottom_up (without)",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="pictures to check the file with, ten at most; default: some of the sample set",
    )
    parser.add_argument(
        "--score-threshold", type=float, metavar="P", help="default: the config's, mostly 0.05"
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="write the file unchecked; its metadata say so"
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=0,
        metavar="N",
        help="afterwards, time the file and the model in turn, N times each",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    add_json_option(parser, "file, metadata, differences and times")
    add_quiet_option(parser)


def _export(args: argparse.Namespace) -> int:
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

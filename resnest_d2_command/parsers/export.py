"""``export``."""

from .common import (
    CHECKPOINT,
    add_json_option,
    add_model_config_option,
    add_parser,
    add_quiet_option,
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
    parser = add_parser(commands, "export", "export.export", epilog=_EPILOG)
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

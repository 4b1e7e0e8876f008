"""Arguments of ``export``."""

from .common import (
    CHECKPOINT,
    add_json_option,
    add_model_config_option,
    add_parser,
    add_quiet_option,
)

_EPILOG = """
The file takes one image, RGB (3, H, W), float32, 0-255, of any size, and normalises it itself.
Outputs of a detector: boxes (N, 4) in pixels, scores, classes and, if the model has them, masks
(N, H, W). Of semantic segmentation: labels (H, W), the class of each pixel, and scores (H, W), the
probability of that class. The metadata has the class names and the size to resize images to. It
runs with onnxruntime only, or with torch and torchvision. A RetinaNet as torch-export gives boxes
and scores of all anchors.

Before the file is renamed into place it is verified: another process runs it on images, and all
outputs must equal those of the model.

Examples:
  a detector for ONNX Runtime, verified on images of yours:
    %(prog)s runs/mine model.onnx --format onnx --images photos/*.jpg
  for torch.jit.load:
    %(prog)s runs/mine/model_final.pth model.pt --format torchscript
  its backbone with the FPN, for torch.export.load:
    %(prog)s runs/mine backbone.pt2 --format torch-export --part backbone

Exit codes: 0 done, 1 failed (the file differs, or cannot be written), 2 refused input.
"""


def add_commands(commands) -> None:
    parser = add_parser(commands, "export", "export.export", epilog=_EPILOG)
    add = parser.add_argument
    add("source", metavar="CKPT", help=CHECKPOINT)
    add_model_config_option(parser)
    add("target", metavar="OUT", help="the file to write")
    add("--format", required=True, metavar="F", help="torchscript, onnx or torch-export")
    add(
        "--part",
        default="model",
        metavar="P",
        help="model (the default), backbone (with its FPN) or bottom_up (without)",
    )
    add(
        "--images",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="images to verify the file with, ten at most; default: some of the sample set",
    )
    add(
        "--score-threshold",
        type=float,
        metavar="P",
        help="lowest score of a detection; default: the config's, mostly 0.05; not for semantic "
        "segmentation",
    )
    add("--no-verify", action="store_true", help="write the file unverified; its metadata say so")
    add(
        "--runs",
        type=int,
        default=0,
        metavar="N",
        help="then time the file and the model in turn, N times each",
    )
    add("--overwrite", action="store_true", help="replace OUT where it exists")
    add_json_option(parser, "file, metadata, differences and times")
    add_quiet_option(parser)

"""Arguments of ``convert``."""

from .common import add_parser

_FORMATS = ("official", "timm", "resnest_d2", "detectron2", "mmdet", "mmcls", "encoding")

_CONVERT_EPILOG = """
Examples:
  an official or timm classifier for Detectron2 (MODEL.WEIGHTS):
    %(prog)s resnest50-528c19ca.pth resnest50.pth
    %(prog)s model.safetensors resnest50_timm.pth
  a detector's backbone file back to the official names, as safetensors:
    %(prog)s resnest50_detectron-255b5649.pth resnest50.safetensors --to official

Exit codes: 0 done, 1 DST could not be written, 2 refused input, 3 written, but SRC lacks tensors
that its network has.
"""


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    parser = add_parser(commands, "convert", "convert.convert", epilog=_CONVERT_EPILOG)
    parser.add_argument("source", metavar="SRC", help="a .pth, .pkl or .safetensors file")
    parser.add_argument(
        "target", metavar="DST", help=".pth, or .safetensors with the provenance in its metadata"
    )
    parser.add_argument(
        "--from",
        dest="source_format",
        choices=_FORMATS,
        metavar="F",
        help=f"format of the file: {', '.join(_FORMATS)}; default: told by its names",
    )
    parser.add_argument(
        "--to",
        dest="target_format",
        choices=_FORMATS,
        default="detectron2",
        metavar="F",
        help="format to write; default: %(default)s",
    )
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="load any pickle, which runs the code in it: only for files that you trust",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")

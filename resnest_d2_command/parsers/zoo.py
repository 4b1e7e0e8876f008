"""``zoo``: models and their weights."""

from .common import add_json_option, add_parser, add_quiet_option

__all__ = ["add_commands"]

_ZOO_EPILOG = """
Examples:
  which models there are:
    %(prog)s
  those for instance segmentation with at least 45 box AP, for a program:
    %(prog)s --task instance --min-ap 45 --json
  one model, its weights, its commands:
    %(prog)s mask_rcnn_resnest50_fpn
  download a published file, or find the one that is here; its path is printed:
    %(prog)s download resnest50_detectron

Exit codes: 0 done, 1 a download failed, 2 refused input.
"""


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    parser = add_parser(
        commands,
        "zoo",
        "zoo.zoo",
        epilog=_ZOO_EPILOG,
        usage="%(prog)s [-h] [--task T] [--backbone B] [--min-ap AP] [--json] [NAME]\n"
        "       %(prog)s download [--sha256 HEX] [--json] [--quiet] NAME",
    )
    parser.add_argument("words", nargs="*", metavar="NAME", help="a model, or a file of weights")
    parser.add_argument("--task", metavar="T", help="detection, instance, keypoints or panoptic")
    parser.add_argument("--backbone", metavar="B", help="e.g. resnest50, resnest50_dcn, resnet101")
    parser.add_argument("--min-ap", type=float, metavar="AP", help="least published box AP, 0-100")
    parser.add_argument(
        "--sha256", metavar="HEX", help="of a download: all 64 digits, where you know them better"
    )
    add_json_option(parser, "the records, or the path of a download,")
    add_quiet_option(parser, "what was asked for")

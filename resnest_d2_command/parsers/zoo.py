"""``zoo``: models and their weights."""

import argparse

from .common import add_json_option, add_parser, add_quiet_option

_EPILOG = """
Examples:
  all models:
    %(prog)s
  those for instance segmentation with at least 45 box AP, for a program:
    %(prog)s list --task instance --min-ap 45 --json
  one model, its weights, its commands:
    %(prog)s show mask_rcnn_resnest50_fpn
  download a published file, or find the one that is here; its path is printed:
    %(prog)s download resnest50_detectron

Exit codes: 0 done, 1 a download failed, 2 refused input.
"""


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    zoo = add_parser(commands, "zoo", "zoo.list", epilog=_EPILOG)
    _add_list_options(zoo)
    parts = zoo.add_subparsers(title="commands; default: list", metavar="COMMAND")

    epilog = _part_epilog("models with a ResNeSt-50", "--backbone resnest50")
    listing = add_parser(
        parts,
        "list",
        "zoo.list",
        "list the models",
        epilog=epilog,
        argument_default=argparse.SUPPRESS,  # options before "list" count too
    )
    _add_list_options(listing)

    epilog = _part_epilog("a model, its weights, its commands", "mask_rcnn_resnest50_fpn")
    show = add_parser(
        parts, "show", "zoo.show", "show a model, or a file of weights", epilog=epilog
    )
    show.add_argument("name", metavar="NAME", help="a model, or a file of weights")
    show.add_argument("--quiet", action="store_true", help=argparse.SUPPRESS)  # it did nothing
    add_json_option(show, "the record")

    epilog = _part_epilog("a backbone's weights", "resnest50_detectron", "1 the download failed, ")
    download = add_parser(
        parts, "download", "zoo.download", "download weights, verified", epilog=epilog
    )
    download.add_argument("name", metavar="NAME", help="a model, or a file of weights")
    download.add_argument(
        "--sha256", metavar="HEX", help="the full hash of 64 digits, instead of the 8 known digits"
    )
    add_json_option(download, "the path")
    add_quiet_option(download, "the path")


def _part_epilog(what: str, arguments: str, failed: str = "") -> str:
    return (
        f"\nExamples:\n  {what}:\n    %(prog)s {arguments}\n\n"
        f"Exit codes: 0 done, {failed}2 refused input.\n"
    )


def _add_list_options(parser: argparse.ArgumentParser) -> None:
    tasks = "detection, instance, keypoints, panoptic, semantic or classification"
    parser.add_argument("--task", metavar="T", help=tasks)
    parser.add_argument("--backbone", metavar="B", help="e.g. resnest50, resnest50_dcn, resnet101")
    parser.add_argument("--min-ap", type=float, metavar="AP", help="least published box AP, 0-100")
    parser.add_argument("--quiet", action="store_true", help=argparse.SUPPRESS)  # it did nothing
    add_json_option(parser, "the records")

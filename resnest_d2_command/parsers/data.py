"""``data``: COCO-format files and label maps checked, split, counted and shown."""

import argparse
import runpy
from pathlib import Path

from ..commands import COMMANDS, describe
from .common import (
    add_classes_option,
    add_data_options,
    add_json_option,
    add_parser,
    add_quiet_option,
)

_EPILOGS = {
    "data": """
Examples:
  all that is wrong with two data sets:
    %(prog)s check --train-json train.json --train-images train/ \\
        --val-json val.json --val-images val/
  options and examples of a command:
    %(prog)s check --help

Exit codes: 0 done, 1 failed, 2 refused input.
""",
    "check": """
Examples:
  one data set:
    %(prog)s --train-json train.json --train-images train/
  training and validation data, which must share no image and have the same classes:
    %(prog)s --train-json train.json --train-images train/ --val-json val.json --val-images val/
  label maps for semantic segmentation:
    %(prog)s --train-images street/train/images --train-labels street/train/labels \\
        --classes street/classes.txt
  for a program, {"problems": [{"file", "id", "kind", "value", "severity"}]}:
    %(prog)s --train-json train.json --train-images train/ --json
  the same in short, any number of data sets:
    %(prog)s train.json train/ val.json val/

Exit codes: 0 no errors (warnings may be), 1 errors, 2 refused input.

Kinds of problems (* a warning only):
""",
    "fix": """
Examples:
  repair what can be repaired, and list the changes in fixed.changes.json:
    %(prog)s train.json fixed.json --images train/
  leave out what stays broken, too:
    %(prog)s train.json fixed.json --images train/ --on-bad-data skip
  objects that are crowds by mistake, as in files of CVAT:
    %(prog)s train.json fixed.json --iscrowd 0

Exit codes: 0 done, 1 a file could not be written, 2 refused input.
""",
    "split": """
Examples:
  a fifth of the images for validation, into parts/train.json and parts/val.json:
    %(prog)s all.json --images all/ --val 0.2 --out parts

Exit codes: 0 done, 1 a file could not be written, 2 refused input.
""",
    "stats": """
Examples:
  tables:
    %(prog)s train.json
  pixels and images by class, of label maps:
    %(prog)s --train-images street/train/images --train-labels street/train/labels \\
        --classes street/classes.txt
  for a program:
    %(prog)s train.json --json

Exit codes: 0 done, 2 refused input.
""",
    "show": """
Examples:
  sixteen images:
    %(prog)s --train-json train.json --train-images train/ --out sheet.png
  nine others, in short:
    %(prog)s train.json train/ --out sheet.png --num 9 --seed 1
  images with their label maps, and a legend:
    %(prog)s --train-images street/train/images --train-labels street/train/labels \\
        --classes street/classes.txt --out sheet.png

Exit codes: 0 done, 1 the file could not be written, 2 refused input.
""",
}


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    group = commands.add_parser(
        "data",
        help=COMMANDS["data"],
        description=describe("data"),
        epilog=_EPILOGS["data"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = group.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, text: str, epilog: str = "", **kwargs) -> argparse.ArgumentParser:
        epilog = _EPILOGS[name] + epilog.replace("%", "%%")
        return add_parser(parts, name, f"data.{name}", text, epilog=epilog, **kwargs)

    check = add(
        "check",
        "report all that is wrong with data sets",
        _kinds(),
    )
    text = "COCO-format {split} annotations"
    add_data_options(check, "train", "val", text=text, several=True)
    _add_label_options(check)
    check.add_argument(
        "paths",
        nargs="*",
        metavar="JSON IMAGES",
        help="in short: annotations and the folder of their images, of any number of data sets",
    )
    add_json_option(check, "every problem")
    add_quiet_option(check, "the problems")

    fix = add("fix", "write a repaired file, and a list of changes")
    fix.add_argument("json_file", metavar="IN", help="a COCO-format JSON file")
    fix.add_argument("out", metavar="OUT", help="a new JSON file")
    fix.add_argument("--images", metavar="DIR", help="the folder of the images, to check them too")
    _add_on_bad_data(fix, ("repair", "skip"))
    fix.add_argument(
        "--no-masks", action="store_true", help="remove unreadable masks, but keep their objects"
    )
    fix.add_argument(
        "--iscrowd", type=int, choices=(0, 1), help="give all annotations this value of iscrowd"
    )
    add_json_option(fix, "the file and the changes")
    add_quiet_option(fix, "the changes")

    split = add("split", "split a file by image into train and val")
    split.add_argument("json_file", metavar="JSON")
    split.add_argument(
        "--images",
        metavar="DIR",
        help="their folder: images whose files hold the same bytes then stay on one side",
    )
    split.add_argument(
        "--val",
        type=float,
        default=0.2,
        metavar="P",
        help="share of the images; default: %(default)s",
    )
    split.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the random split; default: %(default)s",
    )
    split.add_argument(
        "--out", required=True, metavar="DIR", help="for train.json and val.json, never overwritten"
    )
    _add_on_bad_data(split)
    add_json_option(split, "the files and what is in them")
    add_quiet_option(split, "warnings")

    stats = add("stats", "count images, classes and sizes")
    stats.add_argument("json_file", nargs="?", metavar="JSON", help="COCO-format annotations")
    add_data_options(
        stats, "train", "val", text="the same; or {split} annotations, of one data set"
    )
    _add_label_options(stats)
    _add_on_bad_data(stats)
    add_json_option(stats, "the numbers")
    add_quiet_option(stats, "the numbers")

    show = add("show", "draw images with their annotations on one sheet")
    text = "COCO-format {split} annotations, of one data set"
    add_data_options(show, "train", "val", text=text)
    _add_label_options(show)
    text = "in short: annotations and the folder of their images"
    show.add_argument("paths", nargs="*", metavar="JSON IMAGES", help=text)
    show.add_argument("--out", required=True, metavar="FILE.png", help="overwritten if there")
    show.add_argument("--num", type=int, default=16, metavar="N", help="images; %(default)s")
    show.add_argument("--seed", type=int, default=0, metavar="N", help="which images; %(default)s")
    _add_on_bad_data(show)
    show.add_argument(
        "--intensity",
        nargs="+",
        default=["type"],
        metavar=("RULE", "LOW HIGH"),
        help="how images of more than 8 bits are shown, as by RESNEST.INTENSITY; default: type",
    )
    add_quiet_option(show)


def _add_label_options(parser) -> None:
    add_classes_option(parser)
    parser.add_argument(
        "--ignore-value",
        type=int,
        default=255,
        metavar="N",
        help="value in label maps of pixels without a class; default: %(default)s",
    )


def _add_on_bad_data(parser, behaviours=("refuse", "repair", "skip")) -> None:
    parser.add_argument(
        "--on-bad-data",
        choices=behaviours,
        default=behaviours[0],
        help="errors of the file: refuse them, repair what can be repaired and refuse the rest, or "
        "leave the rest out; %(default)s",
    )


def _kinds() -> str:
    """The kinds of problems, from a file of the package that can be run without importing that."""
    package = Path(__file__).resolve().parents[2] / "resnest_d2"
    table = runpy.run_path(str(package / "data" / "check" / "kinds.py"))
    width = max(map(len, table["KINDS"])) + 1
    return "\n".join(
        f"  {kind + '*' * (kind in table['WARNINGS']):{width}}  {text}"
        for kind, text in table["KINDS"].items()
    )

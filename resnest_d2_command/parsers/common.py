"""The form of a help, and options that several commands have.

Every help has the same form: a description, ``Examples:`` (a line that says what for, then the
command) and ``Exit codes:``. Commands whose output a program may read have ``--json``, with JSON as
the only output on stdout. Commands with a progress bar or a log have ``--quiet``.
"""

import argparse

from ..commands import COMMANDS

CHECKPOINT = "a checkpoint, a run's output folder, or resnest://NAME: a published detector"


def add_parser(
    commands,
    name: str,
    run: str,
    text: str | None = None,
    **kwargs,
) -> argparse.ArgumentParser:
    """The parser of a command.

    Args:
        commands: result of ``add_subparsers``.
        run: module and function of ``resnest_d2.cli``, such as ``"data.check"``. The function takes
            the parsed arguments and returns the exit code.
        text: what the command does, without capital and full stop; by default of ``COMMANDS``.
    """
    text = text or COMMANDS[name]
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **kwargs,
    )
    parser.set_defaults(run=run)
    return parser


def add_model_config_option(parser: argparse.ArgumentParser) -> None:
    """``--config-file`` of a checkpoint."""
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="the config that the checkpoint was trained with (a file, or the name of a packaged "
        "config); needed only if resnest-d2 train did not write the checkpoint",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """``--checkpoint``, ``--config-file``, ``--score-threshold``, ``--device`` of a detector."""
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help=CHECKPOINT)
    add_model_config_option(parser)
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="lowest score of a detection, 0-1; default: %(default)s",
    )
    add_device_option(parser)


def add_device_option(parser: argparse.ArgumentParser, purpose: str = "") -> None:
    text = f"{purpose}cpu, cuda, …; default: a GPU if there is one"
    parser.add_argument("--device", metavar="NAME", help=text)


def add_json_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def add_quiet_option(parser: argparse.ArgumentParser, but: str = "errors") -> None:
    """
    Args:
        but: what is printed all the same.
    """
    text = f"no progress bar, and print only {but}"
    parser.add_argument("--quiet", action="store_true", help=text)


def add_data_options(
    parser: argparse.ArgumentParser,
    *splits: str,
    text: str = "",
    several: bool = False,
) -> None:
    """``--SPLIT-json FILE``, or ``--SPLIT-labels DIR``, and ``--SPLIT-images DIR``: how all
    commands take data in COCO's format, or label maps.

    Args:
        splits: ``"train"``, ``"val"``.
        text: help of the first option, in which ``{split}`` stands for training or validation.
        several: they may be repeated, and are lists.
    """
    how = {"action": "append", "default": []} if several else {}
    repeated = "; may be repeated" if several else ""
    for split in splits:
        purpose = text.format(split={"train": "training", "val": "validation"}[split])
        parser.add_argument(f"--{split}-json", metavar="FILE", help=purpose + repeated, **how)
        images = (
            f"image folder of --{split}-json or --{split}-labels; alone: a folder with a folder "
        )
        images += "of images for each class, for classification" + repeated
        parser.add_argument(f"--{split}-images", metavar="DIR", help=images, **how)
        purpose = f"for semantic segmentation: folder of label maps of --{split}-images"
        parser.add_argument(f"--{split}-labels", metavar="DIR", help=purpose + repeated, **how)


def add_classes_option(parser: argparse.ArgumentParser, default: str = "") -> None:
    """``--classes`` of label maps and class folders.

    Args:
        default: what is taken without it.
    """
    text = "names of the classes in label maps: one per line, that of class 0 first, or a JSON list"
    folders = ". For class folders: a JSON object of names by folder; default: the folders' names"
    parser.add_argument("--classes", metavar="FILE", help=text + default + folders)

"""What the parsers share: the form of a help, and common options.

Every help has the same form: what it is about, ``Examples:`` (a line that says what for, then the
command), and ``Exit codes:``. ``--json`` is there where a program may want to read what a command
prints: stdout is JSON alone then. ``--quiet`` is there where there is a progress bar or a log.
"""

import argparse

from ..commands import COMMANDS

__all__ = [
    "CHECKPOINT",
    "add_data_options",
    "add_json_option",
    "add_model_config_option",
    "add_model_options",
    "add_parser",
    "add_quiet_option",
]


def add_parser(
    commands,
    name: str,
    run: str,
    text: str | None = None,
    **kwargs,
) -> argparse.ArgumentParser:
    """A subcommand's parser.

    Args:
        commands: what ``add_subparsers`` returned.
        run: module of ``resnest_d2.cli`` and function in it, such as ``"data.check"``. It takes the
            parsed arguments and returns the exit code.
        text: what it does, without a capital and a full stop; that of ``COMMANDS`` by default.
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


CHECKPOINT = "a checkpoint, a run's output folder, or resnest://NAME: a published detector"


def add_model_config_option(parser: argparse.ArgumentParser) -> None:
    """``--config-file`` beside a checkpoint."""
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="the config that the checkpoint was trained with (a file, or a packaged config's "
        "name): one that resnest-d2 train did not write needs it",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """``--checkpoint``, ``--config-file``, ``--score-threshold``, ``--device``: what detects."""
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help=CHECKPOINT)
    add_model_config_option(parser)
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, metavar="P", help="0-1; default: %(default)s"
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, …; default: a GPU if any")


def add_json_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def add_quiet_option(parser: argparse.ArgumentParser, but: str = "errors") -> None:
    """
    Args:
        but: what is printed nevertheless.
    """
    text = f"no progress bar, and nothing printed but {but}"
    parser.add_argument("--quiet", action="store_true", help=text)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """``--val-json`` and ``--val-images``, for :func:`read_runs`."""
    parser.add_argument("--val-json", metavar="FILE", help="the data, should it have moved")
    parser.add_argument("--val-images", metavar="DIR", help="its images")

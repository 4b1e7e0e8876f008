"""The arguments of all commands. Nothing here imports PyTorch: ``--help`` answers at once."""

import argparse

from ..commands import root_parser
from . import (
    benchmark,
    compare,
    convert,
    data,
    doctor,
    explain,
    export,
    predict,
    replay,
    report,
    run,
    zoo,
)

__all__ = ["build_parser"]


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. A command's ``run`` says where its function is."""
    parser, commands = root_parser()
    for module in (
        run,
        replay,
        predict,
        explain,
        export,
        data,
        zoo,
        convert,
        compare,
        report,
        benchmark,
        doctor,
    ):
        module.add_commands(commands)
    return parser

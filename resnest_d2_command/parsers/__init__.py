"""The arguments of all commands, without importing PyTorch; what a command does is in
``resnest_d2.cli``.
"""

import argparse

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
    study,
    zoo,
)

__all__ = ["build_parser"]

_EPILOG = """
COCO-format data is named in one way by all commands: annotations and their image folder, as
--train-json FILE --train-images DIR for training data, --val-json FILE --val-images DIR for
validation data.

Examples:
  train on your own COCO-format data:
    %(prog)s train --config-file finetune_mask_rcnn_resnest50_fpn \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/ \\
        OUTPUT_DIR runs/mine
  evaluate the result:
    %(prog)s evaluate --checkpoint runs/mine --val-json val.json --val-images val/
  detect objects in a folder of images:
    %(prog)s predict photos/ --checkpoint runs/mine --out predictions
  options and examples of a command:
    %(prog)s predict --help

Exit codes: 0 done, 1 failed, 2 refused input, 130 interrupted; 75 a training stopped by SIGTERM or
SIGUSR1 after it had saved, or before there was anything to save.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. ``run`` of the parsed arguments names a command's function."""
    parser = argparse.ArgumentParser(
        prog="resnest-d2",
        description="ResNeSt backbones for Detectron2: train, evaluate, predict.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (
        *(run, replay, predict, explain, export, data, zoo, convert, compare, report, study),
        benchmark,
        doctor,
    ):
        module.add_commands(commands)
    return parser

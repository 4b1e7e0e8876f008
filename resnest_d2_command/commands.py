"""The commands of ``resnest-d2``: their list must not wait for PyTorch to be imported."""

import argparse

__all__ = ["COMMANDS", "describe", "root_parser"]

COMMANDS = {
    "train": "train a detector",
    "evaluate": "evaluate a checkpoint (train --eval-only)",
    "replay": "repeat the batch whose loss was not finite, and say where it comes from",
    "predict": "detect objects in pictures with a trained checkpoint",
    "explain": "draw the split attention for a picture, and what a detection rests on",
    "export": "write a checkpoint as one file that runs without Detectron2, and check it",
    "data": "check, split, count and show COCO-format data",
    "zoo": "list the models, show one, or download weights",
    "convert": "rename weights between formats",
    "compare": "compare the AP of runs, with intervals and what it costs",
    "report": "write a page about runs: AP, curves, mistakes, pictures",
    "benchmark": "measure speed and memory of networks side by side",
    "doctor": "check this environment, and say what to do about each problem",
}

_EPILOG = """
Examples:
  train on your own COCO-format data:
    %(prog)s train --config-file finetune_mask_rcnn_resnest50_fpn \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/ \\
        OUTPUT_DIR runs/mine
  evaluate what came out of it:
    %(prog)s evaluate --config-file runs/mine/config.yaml --val-json val.json --val-images val/ \\
        MODEL.WEIGHTS runs/mine/model_final.pth
  detect objects in a folder of pictures:
    %(prog)s predict photos/ --checkpoint runs/mine --out predictions
  options and examples of a command:
    %(prog)s predict --help

Exit codes: 0 done, 1 failed, 2 refused input, 130 interrupted; 75 a training that SIGTERM or
SIGUSR1 has stopped after it had saved, or before there was something to save.
"""


def describe(name: str) -> str:
    """What a command does, as a sentence."""
    return COMMANDS[name][0].upper() + COMMANDS[name][1:] + "."


def root_parser():
    """The parser of ``resnest-d2``, and what its subcommands are added to."""
    parser = argparse.ArgumentParser(
        prog="resnest-d2",
        description="ResNeSt backbones for Detectron2: train, evaluate, predict.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    return parser, commands

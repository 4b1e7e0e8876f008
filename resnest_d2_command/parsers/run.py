"""``train`` and ``evaluate``."""

import argparse

from .common import (
    CHECKPOINT,
    add_json_option,
    add_parser,
    add_quiet_option,
)

__all__ = ["add_commands"]

_TRAIN_EPILOG = """
Examples:
  train on your own COCO-format files:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/ \\
        SOLVER.IMS_PER_BATCH 4 OUTPUT_DIR runs/mine
  the same from scratch, not from the weights that the recipe names:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/ \\
        MODEL.WEIGHTS '' MODEL.BACKBONE.FREEZE_AT 0 OUTPUT_DIR runs/mine
  train on COCO (DETECTRON2_DATASETS names the folder that holds coco/):
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml --num-gpus 8
  two processes on the CPU:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml --num-gpus 2 \\
        MODEL.DEVICE cpu
  go on with a run that was stopped or killed, or begin it:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml \\
        --train-json train.json --train-images train/ --resume OUTPUT_DIR runs/mine
  a new run from the weights of another one:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml \\
        --train-json train.json --train-images train/ --init-from runs/mine OUTPUT_DIR runs/next
  under torchrun, which starts a broken run anew up to three times; it then resumes by itself:
    torchrun --nproc-per-node 8 --max-restarts 3 -m resnest_d2.cli train \\
        --config-file configs/mask_rcnn_resnest50_fpn.yaml
  under Slurm, on all nodes of a job (#SBATCH --ntasks-per-node=1 --signal=TERM@120 --requeue):
    srun torchrun --nnodes=$SLURM_NNODES --nproc-per-node=$SLURM_GPUS_ON_NODE \\
        --rdzv-id=$SLURM_JOB_ID --rdzv-backend=c10d \\
        --rdzv-endpoint=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1):29500 \\
        -m resnest_d2.cli train --config-file configs/mask_rcnn_resnest50_fpn.yaml --resume

Exit codes: 0 done, 1 failed, 2 refused input, 130 interrupted, 75 stopped by SIGTERM or SIGUSR1
after a checkpoint was saved, or before the first iteration: --resume goes on from the checkpoint,
or begins. torchrun itself exits with 1 whatever its processes exit with.
"""


_EVALUATE_EPILOG = """
Examples:
  a run, on its own validation data:
    %(prog)s --checkpoint runs/mine --val-json val.json --val-images val/
  for a script, with other settings than those of the training:
    %(prog)s --config-file runs/mine/config.yaml --val-json val.json --val-images val/ \\
        --json --quiet MODEL.WEIGHTS runs/mine/model_final.pth
  on COCO, the metrics into a file:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml --num-gpus 8 \\
        --output-json result.json MODEL.WEIGHTS output/model_final.pth
  a published model, which must have its published AP:
    %(prog)s --checkpoint resnest://mask_rcnn_resnest50_fpn --verify

Exit codes: 0 done, 1 failed, or --verify found another AP, 2 refused input, 130 interrupted.
"""


def add_commands(commands) -> None:
    """Add both to a parser's subcommands."""
    train = add_parser(commands, "train", "run.train", epilog=_TRAIN_EPILOG)
    train.set_defaults(checkpoint=None)
    _add_run_arguments(train)
    evaluate = add_parser(commands, "evaluate", "run.train", epilog=_EVALUATE_EPILOG)
    evaluate.add_argument(
        "--checkpoint",
        metavar="FILE",
        help=f"{CHECKPOINT}; in place of MODEL.WEIGHTS, and of --config-file where it has one",
    )
    _add_run_arguments(evaluate)
    evaluate.set_defaults(eval_only=True)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="a config file, or the name of a packaged config such as mask_rcnn_resnest50_fpn",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from OUTPUT_DIR's last readable checkpoint, if it has one",
    )
    parser.add_argument(
        "--init-from",
        metavar="FILE",
        help="start a new run from these weights (a file, or a run's folder: its best or last "
        "checkpoint), in place of MODEL.WEIGHTS",
    )
    parser.add_argument(
        "--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, no training"
    )
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="with --eval-only: make the model faster first (batch norms folded, compiled, "
        "bfloat16 where the hardware gains by it)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="with --eval-only, on COCO: exit with 1 unless the result is the published one",
    )
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="load MODEL.WEIGHTS even where it holds more than tensors and plain types, which runs "
        "the code in it",
    )
    parser.add_argument(
        "--num-gpus",
        type=int,
        metavar="N",
        help="processes on this machine: one per GPU, or N on the CPU; default: 1, or torchrun's",
    )
    parser.add_argument(
        "--num-machines", type=int, metavar="N", help="default: 1, or as many as torchrun has"
    )
    parser.add_argument(
        "--machine-rank", type=int, default=0, metavar="K", help="this machine's number, from 0"
    )
    parser.add_argument(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="tcp://HOST:PORT of machine 0; needed for several machines",
    )
    for split, purpose in (("train", "train on"), ("val", "evaluate on")):
        parser.add_argument(
            f"--{split}-json",
            action="append",
            default=[],
            metavar="FILE",
            help=f"COCO-format annotations to {purpose}, in place of the config's data sets; "
            "may be repeated",
        )
        parser.add_argument(
            f"--{split}-images",
            action="append",
            default=[],
            metavar="DIR",
            help=f"image folder of the --{split}-json in the same place",
        )
    parser.add_argument(
        "--on-bad-data",
        choices=("refuse", "repair", "skip", "error"),
        metavar="{refuse,repair,skip}",
        default="refuse",
        help="own data with errors: refuse it (the default), repair what can be repaired and "
        "refuse the rest, or leave the rest out and list it in OUTPUT_DIR; "
        "'data check --help' has the kinds",
    )
    parser.add_argument(
        "--output-json", metavar="FILE", help='write the metrics: {"bbox": {"AP": …}, …}'
    )
    add_json_option(parser, "the metrics")
    add_quiet_option(parser, "warnings and errors; log.txt has the rest")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE …",
        help="config keys to override, e.g. SOLVER.IMS_PER_BATCH 8",
    )

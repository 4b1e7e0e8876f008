"""Arguments of ``train`` and ``evaluate``."""

import argparse

from .common import (
    CHECKPOINT,
    add_classes_option,
    add_data_options,
    add_json_option,
    add_parser,
    add_quiet_option,
)

_TRAIN_EPILOG = """
Examples:
  train on your own COCO-format files:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/ \\
        SOLVER.IMS_PER_BATCH 4 OUTPUT_DIR runs/mine
  the same from scratch, without the weights that the recipe names:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/ \\
        MODEL.WEIGHTS '' MODEL.BACKBONE.FREEZE_AT 0 OUTPUT_DIR runs/mine
  train on COCO (DETECTRON2_DATASETS names the folder that holds coco/):
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml --num-gpus 8
  two processes on the CPU:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml --num-gpus 2 \\
        MODEL.DEVICE cpu
  continue a run that was stopped or killed, or begin it:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml \\
        --train-json train.json --train-images train/ --resume OUTPUT_DIR runs/mine
  a new run from the weights of another one:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml \\
        --train-json train.json --train-images train/ --init-from runs/mine OUTPUT_DIR runs/next
  under torchrun, which restarts a failed run up to three times; it then resumes by itself:
    torchrun --nproc-per-node 8 --max-restarts 3 -m resnest_d2.cli train \\
        --config-file configs/mask_rcnn_resnest50_fpn.yaml
  under Slurm, on all nodes of a job (#SBATCH --ntasks-per-node=1 --signal=TERM@120 --requeue):
    srun torchrun --nnodes=$SLURM_NNODES --nproc-per-node=$SLURM_GPUS_ON_NODE \\
        --rdzv-id=$SLURM_JOB_ID --rdzv-backend=c10d \\
        --rdzv-endpoint=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1):29500 \\
        -m resnest_d2.cli train --config-file configs/mask_rcnn_resnest50_fpn.yaml --resume

Exit codes: 0 done, 1 failed, 2 refused input, 130 interrupted, 75 stopped by SIGTERM or SIGUSR1
after a checkpoint was saved, or before the first iteration: --resume continues from the checkpoint,
or begins. torchrun itself exits with 1, whatever its processes exit with.
"""

_EVALUATE_EPILOG = """
A checkpoint of resnest-d2 has its config, and so does a published model: --config-file is only
needed for other checkpoints.

Examples:
  a run, on your own validation data:
    %(prog)s --checkpoint runs/mine --val-json val.json --val-images val/
  a checkpoint of stock Detectron2's trainer:
    %(prog)s --checkpoint output/model_final.pth --config-file mask_rcnn_resnest50_fpn
  for a script, with other settings than those of the training:
    %(prog)s --checkpoint runs/mine/model_final.pth --val-json val.json --val-images val/ \\
        --json --quiet INPUT.MIN_SIZE_TEST 640
  on COCO, the metrics into a file:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml --num-gpus 8 \\
        --output-json result.json MODEL.WEIGHTS output/model_final.pth
  a published model, which must have its published AP:
    %(prog)s --checkpoint resnest://mask_rcnn_resnest50_fpn --verify

Exit codes: 0 done, 1 failed, or --verify found another AP, 2 refused input, 130 interrupted.
"""


def add_commands(commands) -> None:
    train = add_parser(commands, "train", "run.train", epilog=_TRAIN_EPILOG)
    train.set_defaults(checkpoint=None)
    _add_run_arguments(train, evaluates=False)
    evaluate = add_parser(commands, "evaluate", "run.train", epilog=_EVALUATE_EPILOG)
    text = f"{CHECKPOINT}; instead of MODEL.WEIGHTS"
    evaluate.add_argument("--checkpoint", metavar="FILE", help=text)
    _add_run_arguments(evaluate, evaluates=True)
    evaluate.set_defaults(eval_only=True)


def _add_run_arguments(parser: argparse.ArgumentParser, *, evaluates: bool) -> None:
    add = parser.add_argument
    eval_only = "" if evaluates else "with --eval-only: "

    def add_for_training(name: str, text: str, **how) -> None:
        """``evaluate`` takes them too, because ``train --eval-only`` does."""
        add(name, help=argparse.SUPPRESS if evaluates else text, **how)

    add(
        "--config-file",
        metavar="FILE",
        help="a config file, or the name of a packaged config such as mask_rcnn_resnest50_fpn"
        + "; the default is that of --checkpoint" * evaluates,
    )
    text = "continue from the last readable checkpoint in OUTPUT_DIR, if there is one"
    add_for_training("--resume", text, action="store_true")
    text = (
        "start a new run from these weights (a file, or a run's folder: its best or last "
        "checkpoint), instead of MODEL.WEIGHTS"
    )
    add_for_training("--init-from", text, metavar="FILE")
    add_for_training("--eval-only", "evaluate MODEL.WEIGHTS, no training", action="store_true")
    add(
        "--optimize",
        action="store_true",
        help=f"{eval_only}make the model faster first (batch norms folded, compiled, bfloat16 "
        "where it is faster)",
    )
    text = f"{eval_only}exit with 1 unless the result on COCO is the published one"
    add("--verify", action="store_true", help=text)
    add(
        "--trust-pickle",
        action="store_true",
        help="load any pickle as MODEL.WEIGHTS, which runs the code in it: only for files that you "
        "trust",
    )
    add(
        "--num-gpus",
        type=int,
        metavar="N",
        help="processes on this machine: one per GPU, or N on the CPU; default: 1, or torchrun's",
    )
    add(
        "--num-machines",
        type=int,
        metavar="N",
        help="number of machines; default: 1, or torchrun's",
    )
    text = "number of this machine, from 0"
    add("--machine-rank", type=int, default=0, metavar="K", help=text)
    text = "tcp://HOST:PORT of machine 0; needed for several machines"
    add("--dist-url", default="auto", metavar="URL", help=text)
    text = "COCO-format {split} annotations, instead of the config's data sets"
    splits = ("val",) if evaluates else ("train", "val")
    add_data_options(parser, *splits, text=text, several=True)
    if evaluates:
        for name in ("--train-json", "--train-images", "--train-labels"):
            add_for_training(name, "", action="append", default=[])
    default = "; default: those of the checkpoint that is evaluated"
    add_classes_option(parser, default)
    add(
        "--on-bad-data",
        choices=("refuse", "repair", "skip", "error"),
        metavar="{refuse,repair,skip}",
        default="refuse",
        help="own data with errors: refuse it (the default), repair what can be repaired and "
        "refuse the rest, or leave the rest out and list it in OUTPUT_DIR; "
        "'data check --help' has the kinds",
    )
    add("--output-json", metavar="FILE", help='write the metrics: {"bbox": {"AP": …}, …}')
    add_json_option(parser, "the metrics")
    add_quiet_option(parser, "warnings and errors; log.txt has everything")
    add(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE …",
        help="config keys to override, e.g. SOLVER.IMS_PER_BATCH 8",
    )

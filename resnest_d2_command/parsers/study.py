"""Arguments of ``study``."""

from .common import add_json_option, add_parser, add_quiet_option

_EPILOG = """
FILE is YAML. Each group is trained with each seed; what is given for all groups and what a group
adds are options of 'resnest-d2 train' and config keys. {group} and {seed} in a value are replaced,
and paths are relative to the folder of FILE. For example:

  options:
    train-json: train.json
    train-images: train
    val-json: val.json
    val-images: val
  keys:
    MODEL.WEIGHTS: ''
    MODEL.BACKBONE.FREEZE_AT: 0
    SOLVER.MAX_ITER: 3000
  groups:
    resnet50: {options: {config-file: mask_rcnn_resnet50_fpn}}
    resnest50: {options: {config-file: mask_rcnn_resnest50_fpn}}
  seeds: [1, 2, 3]
  compare: [[resnet50, resnest50]]
  threads: 1

DIR then has GROUP/SEED, the output folder of each run; runs.csv, with the time and the metrics of
each run; and OTHER-against-BASELINE for each entry of 'compare', with a comparison and a report of
the first two runs. Further groups of an entry are more baselines, for the gain at equal cost.

A study that was stopped or killed goes on when the command is given again, also on another machine
to which DIR and the data were copied.

Examples:
  one run after the other:
    %(prog)s study.yaml
  two at a time:
    %(prog)s study.yaml --jobs 2 --out runs/study
  only print the commands:
    %(prog)s study.yaml --dry-run

Exit codes: 0 done, 1 a run or a comparison has failed, 2 refused input, 75 a run was stopped by
SIGTERM or SIGUSR1 after it had saved, 130 interrupted.
"""


def add_commands(commands) -> None:
    parser = add_parser(commands, "study", "study.study", epilog=_EPILOG)
    add = parser.add_argument
    add("file", metavar="FILE", help="the study, in YAML")
    text = "folder of the results; default: beside FILE, with its name"
    add("--out", metavar="DIR", help=text)
    text = "trainings at a time; default: %(default)s"
    add("--jobs", type=int, default=1, metavar="N", help=text)
    add("--dry-run", action="store_true", help="print the commands and run nothing")
    add_json_option(parser, "the runs and the verdicts")
    add_quiet_option(parser, "failures and the verdicts")

"""``predict``."""

from .common import add_json_option, add_model_options, add_parser, add_quiet_option

__all__ = ["add_commands"]

_EPILOG = """
SRC is a file, a folder (searched with its sub-folders for files that end in .jpg, .png, .tif and
the like, hidden ones left out), or a quoted pattern, in which ** stands for any folders.

DIR then holds a drawing of each picture, in the sources' folders, predictions.json (COCO results),
images.json (their images and categories), predictions.csv, and failed.csv if files could not be
read. Category ids are those of the training data if the checkpoint knows them, else class
number + 1; see "info" in images.json.

Stopped in any way, or with new pictures in SRC, the same command goes on with what is not done;
failed files are tried again. Other settings need another DIR. Pictures of more than 178,956,970
pixels are refused.

Examples:
  a folder:
    %(prog)s photos/ --checkpoint runs/mine --out predictions
  a pattern, without drawings:
    %(prog)s 'photos/**/*.jpg' --checkpoint runs/mine/model_final.pth --out found \\
        --format none
  a published detector, downloaded where it is not here:
    %(prog)s photos/ --checkpoint resnest://mask_rcnn_resnest50_fpn
  a checkpoint of stock Detectron2's trainer:
    %(prog)s photos/ --checkpoint output/model_final.pth --config-file mask_rcnn_resnest50_fpn
  test-time augmentation, for a script:
    %(prog)s photos/ --checkpoint runs/mine --out augmented --tta --json --quiet

Exit codes: 0 every file is predicted; 1 some could not be read (the others are done), or the
results could not be written; 2 refused input; 130 interrupted.
"""


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    parser = add_parser(commands, "predict", "predict.predict", epilog=_EPILOG)
    parser.add_argument("sources", nargs="+", metavar="SRC", help="files, folders, patterns")
    add_model_options(parser)
    parser.add_argument(
        "--out",
        default="predictions",
        metavar="DIR",
        help="a new or an empty folder, or that of the same command; default: %(default)s",
    )
    parser.add_argument(
        "--batch-size", type=int, default=4, metavar="N", help="pictures; default: %(default)s"
    )
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="compile the model first: the first picture takes a minute, the others less time",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation (TEST.AUG of the config): some 20 times slower",
    )
    parser.add_argument(
        "--format",
        default="png",
        metavar="F",
        help="of the drawings: png (the default), jpg or none",
    )
    add_json_option(parser, "the summary")
    add_quiet_option(parser, "the files that failed")

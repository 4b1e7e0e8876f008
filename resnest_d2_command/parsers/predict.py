"""Arguments of ``predict``."""

from .common import add_json_option, add_model_options, add_parser, add_quiet_option

_EPILOG = """
SRC is a file, a folder (searched with its sub-folders for files that end in .jpg, .png, .tif and
the like, except hidden ones), or a quoted pattern, in which ** stands for any folders.

DIR then has a drawing of each image, in the sub-folders of the sources, predictions.json (COCO
results), images.json (their images and categories), predictions.csv, and failed.csv if files could
not be read. Category ids are those of the training data if the checkpoint has them, else class
number + 1; see "info" in images.json. Of a model for semantic segmentation it has, in place of COCO
results, labels/NAME.png for each file NAME, whose values are class numbers, and the areas of the
classes in predictions.csv. Of a classifier it has only predictions.csv, with the five most likely
classes of each image.

If the command was stopped in any way, or SRC has new images, the same command goes on with what is
missing, and tries failed files again. Other settings need another DIR. Images of more than
178,956,970 pixels are refused.

Examples:
  a folder:
    %(prog)s photos/ --checkpoint runs/mine --out predictions
  a pattern, without drawings:
    %(prog)s 'photos/**/*.jpg' --checkpoint runs/mine/model_final.pth --out found \\
        --format none
  a published detector, downloaded if needed:
    %(prog)s photos/ --checkpoint resnest://mask_rcnn_resnest50_fpn
  a checkpoint of stock Detectron2's trainer:
    %(prog)s photos/ --checkpoint output/model_final.pth --config-file mask_rcnn_resnest50_fpn
  test-time augmentation, for a script:
    %(prog)s photos/ --checkpoint runs/mine --out augmented --tta --json --quiet

Exit codes: 0 every file is predicted; 1 some could not be read (the others are done), or the
results could not be written; 2 refused input; 130 interrupted.
"""


def add_commands(commands) -> None:
    parser = add_parser(commands, "predict", "predict.predict", epilog=_EPILOG)
    add = parser.add_argument
    add("sources", nargs="+", metavar="SRC", help="files, folders, patterns")
    add_model_options(parser)
    add(
        "--out",
        default="predictions",
        metavar="DIR",
        help="a new or an empty folder, or that of the same command; default: %(default)s",
    )
    add("--batch-size", type=int, default=4, metavar="N", help="images; default: %(default)s")
    add(
        "--optimize",
        action="store_true",
        help="compile the model first: the first image takes a minute, later ones less time",
    )
    add(
        "--tta",
        action="store_true",
        help="test-time augmentation (TEST.AUG of the config): some 20 times slower",
    )
    add("--format", default="png", metavar="F", help="drawings: png (the default), jpg or none")
    add_json_option(parser, "the summary")
    add_quiet_option(parser, "the files that failed")

"""Arguments of ``explain``."""

import argparse

from .common import (
    add_classes_option,
    add_data_options,
    add_json_option,
    add_model_options,
    add_parser,
    add_quiet_option,
)

_EPILOG = """
Files in DIR:
  attention_overview.png   how each block divides its weight between the splits, for the image
  attention_BLOCK.png      of one block: its weights, and the maps of its most and least selective
                           channels
  attention.npz            the arrays: blocks; BLOCK.weights (1, splits, channels) of each, and of
                           the drawn one BLOCK.splits (1, splits, channels, h, w)
  saliency_N.png, .npz     what each pixel adds to the score of detection N: attribution (h, w) in
                           pixels of the resized image, box, label, score, baseline
and with --val-json or --val-labels:
  attention_by_class.png   how far the weights depend on the classes in an image
  attention_by_class.npz   class_names, num_images, blocks; of each BLOCK.mean (classes, splits,
                           channels), .deviation, .chance (classes), .overall (splits, channels)

For semantic segmentation, the classes of the predicted label map stand in place of detections, the
largest first: the score of a class is its mean probability over the pixels predicted as it, which
are the region (h, w) of the .npz file.

Saliency needs captum (pip install 'resnest-d2[explain]') and time: it runs the network 64 times
forward and backward.

Examples:
  an image:
    %(prog)s street.jpg --checkpoint runs/mine --out explained
  another block, the second detection, and the means by class over a data set:
    %(prog)s street.jpg --checkpoint runs/mine --block res4.1 --detection 1 \\
        --val-json val.json --val-images val/
  the largest class of a predicted label map:
    %(prog)s street.jpg --checkpoint runs/street --out explained

Exit codes: 0 done, 1 a result could not be written, 2 refused input.
"""


def add_commands(commands) -> None:
    parser = add_parser(commands, "explain", "explain.explain", epilog=_EPILOG)
    add = parser.add_argument
    add("image", metavar="IMAGE", help="an image file")
    add_model_options(parser)
    add("--out", default="explained", metavar="DIR", help="folder to write; default: %(default)s")
    add("--block", metavar="NAME", help="e.g. res4.1; default: the most selective for the image")
    add(
        "--detection",
        type=int,
        metavar="N",
        help="number of the detection to explain; default: 0, the one with the highest score, or "
        "the largest class",
    )
    add_data_options(parser, "val", text="annotated images, for means by class")
    add_classes_option(parser, "; default: those of the checkpoint")
    add("--data", nargs=2, help=argparse.SUPPRESS)  # its older form
    add(
        "--num-images",
        type=int,
        default=200,
        metavar="N",
        help="at most N images, chosen at random; default: %(default)s",
    )
    add_json_option(parser, "the figures")
    add_quiet_option(parser)

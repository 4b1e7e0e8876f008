"""``explain``."""

from .common import add_json_option, add_model_options, add_parser, add_quiet_option

__all__ = ["add_commands"]

_EPILOG = """
What is written to DIR:
  attention_overview.png   how each block divides its weight between the splits, for the picture
  attention_BLOCK.png      of one block: its weights, and the maps of its most and least selective
                           channels
  attention.npz            the arrays: blocks; BLOCK.weights (1, splits, channels) of each, and of
                           the drawn one BLOCK.splits (1, splits, channels, h, w)
  saliency_N.png, .npz     what each pixel adds to the score of detection N: attribution (h, w) in
                           pixels of the resized picture, box, label, score, baseline
and with --data:
  attention_by_class.png   how far the weights depend on the classes that pictures hold
  attention_by_class.npz   class_names, num_images, blocks; of each BLOCK.mean (classes, splits,
                           channels), .deviation, .chance (classes), .overall (splits, channels)

Saliency needs captum (pip install 'resnest-d2[explain]'), and time: it runs the network 64 times
forward and backward.

Examples:
  a picture:
    %(prog)s street.jpg --checkpoint runs/mine --out explained
  another block, the second detection, and the means by class over a data set:
    %(prog)s street.jpg --checkpoint runs/mine --block res4.1 --detection 1 \\
        --data val.json val/

Exit codes: 0 done, 1 a result could not be written, 2 refused input.
"""


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    parser = add_parser(commands, "explain", "explain.explain", epilog=_EPILOG)
    parser.add_argument("image", metavar="IMAGE", help="a picture file")
    add_model_options(parser)
    parser.add_argument("--out", default="explained", metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--block", metavar="NAME", help="e.g. res4.1; default: the most selective for the picture"
    )
    parser.add_argument(
        "--detection",
        type=int,
        metavar="N",
        help="number of the detection to explain, from 0; default: the first, of the highest score",
    )
    parser.add_argument(
        "--data", nargs=2, metavar=("JSON", "IMAGES"), help="annotated pictures, for means by class"
    )
    parser.add_argument(
        "--num-images",
        type=int,
        default=200,
        metavar="N",
        help="at most so many of them, drawn at random; default: %(default)s",
    )
    add_json_option(parser, "the figures")
    add_quiet_option(parser)

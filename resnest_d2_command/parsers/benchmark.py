"""Arguments of ``benchmark``."""

from .common import add_json_option, add_parser, add_quiet_option

_EPILOG = """
NETWORK is [SOURCE:]NAME[+SETTING]…. NAME is a ResNeSt variant such as resnest50, resnet50 or
resnet101 (Detectron2's), or a packaged config: the whole model. SOURCE is official (needs
resnest==0.0.5) or timm. Settings: channels_last, bfloat16, compiled; for inference optimized,
float32; for training recompute_norm, checkpointed. All are measured in one process, in turn.

Examples:
  parameters and multiply-adds of all variants as classifiers at 224 x 224, and their latency:
    %(prog)s
  backbones against the official implementation:
    %(prog)s resnest50+optimized resnest50 resnet50 official:resnest50 --size 640 800
  a detector, or a model for semantic segmentation, by part:
    %(prog)s mask_rcnn_resnest50_fpn+optimized mask_rcnn_resnest50_fpn --size 800 1088
    %(prog)s deeplabv3_resnest50_ade20k deeplabv3_resnet50_ade20k --size 480 480
  training steps, time and memory:
    %(prog)s resnest50+recompute_norm+bfloat16 resnest50 official:resnest50 --training \\
        --size 320 416 --batch 2
  how cost grows with pixels, batch, depth, radix, cardinality, proposals, processes:
    %(prog)s --scaling --runs 5 --out scaling

Exit codes: 0 done, 1 a result could not be written, 2 refused input.
"""


def add_commands(commands) -> None:
    parser = add_parser(commands, "benchmark", "benchmark.benchmark", epilog=_EPILOG)
    add = parser.add_argument
    networks = "what to measure; default: all variants, as classifiers"
    add("networks", nargs="*", metavar="NETWORK", help=networks)
    add(
        "--size",
        type=int,
        nargs=2,
        default=(224, 224),
        metavar=("H", "W"),
        help="height and width of the images, pixels; default: 224 224",
    )
    add("--batch", type=int, default=1, metavar="N", help="number of images; default: %(default)s")
    add("--training", action="store_true", help="measure forward and backward pass, not inference")
    add("--classifier", action="store_true", help="measure with 1000 classes, not feature maps")
    add(
        "--scaling",
        nargs="*",
        metavar="QUANTITY",
        help="measure how cost grows with pixels, batch, radix, cardinality, depth, proposals, "
        "processes, and fit exponents; default: with all of them",
    )
    add("--device", default="cpu", metavar="NAME", help="such as cpu, cuda; default: %(default)s")
    add(
        "--runs",
        type=int,
        default=10,
        metavar="N",
        help="number of timed runs; 0: count only; default: %(default)s",
    )
    add("--reference", metavar="NETWORK", help="baseline for the ratios; default: the last")
    add("--out", metavar="DIR", help="write benchmark.json, benchmark.md and benchmark.png")
    add_json_option(parser, "the measurements")
    add_quiet_option(parser, "the measurements")

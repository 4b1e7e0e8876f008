#!/usr/bin/env python
"""Train or evaluate a detector from a LazyConfig: Detectron2's tool of this name, on any device."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from detectron2.engine import default_argument_parser  # noqa: E402

from resnest_d2.cli.common import execute, process_options  # noqa: E402
from resnest_d2.engine import RunRequest, prepare_lazy, run_lazy  # noqa: E402

EPILOG = """
Examples:
  train on COCO (DETECTRON2_DATASETS names the folder that holds coco/):
    %(prog)s --config-file mask_rcnn_resnest50_fpn --num-gpus 8
  with other values, and another depth:
    %(prog)s --config-file configs/lazy/mask_rcnn_resnest50_fpn.py optimizer.lr=0.01 \\
        model.backbone.bottom_up.depth=101 train.init_checkpoint=resnest://resnest101_detectron
  evaluate a checkpoint:
    %(prog)s --config-file mask_rcnn_resnest50_fpn --eval-only \\
        train.init_checkpoint=output/model_final.pth
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 refused input."""
    parser = default_argument_parser(EPILOG)
    parser.set_defaults(dist_url="auto", num_gpus=None, num_machines=None)
    parser.add_argument("--output-json", metavar="FILE", help="write the metrics")
    parser.add_argument(
        "--optimize", action="store_true", help="with --eval-only: make the model faster first"
    )
    args = parser.parse_args(argv)

    def build() -> RunRequest:
        return RunRequest(
            config=args.config_file,
            opts=tuple(args.opts),
            resume=args.resume,
            eval_only=args.eval_only,
            optimize=args.optimize,
            output_json=args.output_json,
            **process_options(args),
        )

    return execute(build, prepare_lazy, run_lazy)


if __name__ == "__main__":
    sys.exit(main())

"""The ``resnest-d2`` command. Files in ``tools/`` are doors to its subcommands.

Exit codes: 0 done, 1 failed, 2 refused input.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .checkpoint import FORMATS

__all__ = ["main"]

_REFUSALS = (ValueError, KeyError, FileNotFoundError, FileExistsError)

_RUN_EPILOG = """
Examples:
  train on COCO (DETECTRON2_DATASETS names the folder that holds coco/):
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml --num-gpus 8
  train on your own COCO-format files, from scratch:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/ \\
        MODEL.WEIGHTS '' MODEL.BACKBONE.FREEZE_AT 0 OUTPUT_DIR runs/mine
  two processes on the CPU:
    %(prog)s --config-file configs/mask_rcnn_resnest50_fpn.yaml --num-gpus 2 MODEL.DEVICE cpu
  evaluate a checkpoint:
    %(prog)s --config-file runs/mine/config.yaml --eval-only MODEL.WEIGHTS runs/mine/model_final.pth
"""

_CONVERT_EPILOG = """
Examples:
  an official or timm classifier for Detectron2 (MODEL.WEIGHTS):
    %(prog)s resnest50-528c19ca.pth resnest50.pth
    %(prog)s model.safetensors resnest50.pth
  a detector's backbone file back to the official names, as safetensors:
    %(prog)s resnest50_detectron-255b5649.pth resnest50.safetensors --to official
"""


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file",
        required=True,
        metavar="FILE",
        help="a config file, or the name of a packaged config such as mask_rcnn_resnest50_fpn",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from OUTPUT_DIR's last checkpoint"
    )
    parser.add_argument(
        "--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, no training"
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
        default=1,
        metavar="N",
        help="processes on this machine: one per GPU, or N on the CPU",
    )
    parser.add_argument("--num-machines", type=int, default=1, metavar="N")
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
        "--output-json", metavar="FILE", help='write the metrics: {"bbox": {"AP": …}, …}'
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE …",
        help="config keys to override, e.g. SOLVER.IMS_PER_BATCH 8",
    )


def _pairs(args: argparse.Namespace, split: str) -> tuple[tuple[str, str], ...]:
    files, folders = getattr(args, f"{split}_json"), getattr(args, f"{split}_images")
    if len(files) != len(folders):
        raise ValueError(
            f"--{split}-json and --{split}-images go together: got {len(files)} and {len(folders)}"
        )
    return tuple(zip(files, folders, strict=True))


def _train(args: argparse.Namespace) -> int:
    from .engine import RunRequest, prepare, run

    try:
        request = RunRequest(
            config=args.config_file,
            opts=tuple(args.opts),
            train=_pairs(args, "train"),
            val=_pairs(args, "val"),
            resume=args.resume,
            eval_only=args.eval_only,
            trust_pickle=args.trust_pickle,
            output_json=args.output_json,
            num_processes=args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
        )
        prepare(request)
    except _REFUSALS as error:
        return _refuse(error)
    run(request)
    return 0


def _predict(args: argparse.Namespace) -> int:
    from PIL import Image

    from detectron2.data.detection_utils import read_image

    from .predictor import Predictor

    try:
        predictor = Predictor(
            args.checkpoint, device=args.device, score_threshold=args.score_threshold
        )
        missing = [source for source in args.sources if not Path(source).is_file()]
        if missing:
            raise FileNotFoundError(f"no such file: {', '.join(missing)}")
    except _REFUSALS as error:
        return _refuse(error)
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for source in args.sources:
        image = read_image(source, format="RGB")
        instances = predictor(image)
        picture = folder / f"{Path(source).stem}.png"
        Image.fromarray(predictor.draw(image, instances)).save(picture)
        found[source] = [
            {"class": predictor.class_names[label], "score": score, "box": box}
            for label, score, box in zip(
                instances.pred_classes.tolist(),
                instances.scores.tolist(),
                instances.pred_boxes.tensor.tolist(),
                strict=True,
            )
        ]
        if not args.json:
            print(f"{source}: {len(instances)} instances -> {picture}")
    if args.json:
        print(json.dumps(found, indent=2))
    return 0


def _convert(args: argparse.Namespace) -> int:
    from .checkpoint import convert_file, describe
    from .model_zoo import WEIGHTS

    def find_license(sha256: str) -> str | None:
        known = (file for file in WEIGHTS.values() if file.sha256)
        return next((file.license for file in known if sha256.startswith(file.sha256)), None)

    try:
        converted = convert_file(
            args.source,
            args.target,
            source_format=args.source_format,
            target_format=args.target_format,
            trust_pickle=args.trust_pickle,
            overwrite=args.overwrite,
            find_license=find_license,
        )
    except _REFUSALS as error:
        return _refuse(error)
    except OSError as error:  # a full disk, a folder that is read-only
        print(f"resnest-d2: error: {args.target} is not written: {error}", file=sys.stderr)
        return 1
    what = describe(converted.tensors, args.source_format or converted.format)
    print(f"{args.source} -> {args.target}: {what}, {args.target_format} names")
    return 0


def _refuse(error: Exception) -> int:
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    print(f"resnest-d2: error: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resnest-d2", description="ResNeSt backbones for Detectron2: train, evaluate, predict."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run, text: str, **kwargs) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )
        sub.set_defaults(run=run)
        return sub

    _add_run_arguments(command("train", _train, "train a detector", epilog=_RUN_EPILOG))
    evaluate = command("evaluate", _train, "evaluate a checkpoint (train --eval-only)")
    _add_run_arguments(evaluate)
    evaluate.set_defaults(eval_only=True)

    predict = command("predict", _predict, "detect objects in pictures with a trained checkpoint")
    predict.add_argument("sources", nargs="+", metavar="IMAGE", help="picture files")
    predict.add_argument(
        "--checkpoint", required=True, metavar="FILE", help="a checkpoint, or a run's output folder"
    )
    predict.add_argument("--out", default="predictions", metavar="DIR", help="default: %(default)s")
    predict.add_argument("--score-threshold", type=float, default=0.5, metavar="P")
    predict.add_argument("--device", metavar="NAME", help="cpu, cuda, …; default: a GPU if any")
    predict.add_argument("--json", action="store_true", help="print the detections as JSON")

    convert = command("convert", _convert, "rename weights between formats", epilog=_CONVERT_EPILOG)
    convert.add_argument("source", metavar="SRC", help="a .pth, .pkl or .safetensors file")
    convert.add_argument(
        "target", metavar="DST", help=".pth, or .safetensors with the provenance in its metadata"
    )
    convert.add_argument(
        "--from",
        dest="source_format",
        choices=FORMATS,
        metavar="F",
        help=f"{', '.join(FORMATS)}; default: what the names in the file say",
    )
    convert.add_argument(
        "--to",
        dest="target_format",
        choices=FORMATS,
        default="detectron2",
        metavar="F",
        help="default: %(default)s",
    )
    convert.add_argument(
        "--trust-pickle",
        action="store_true",
        help="load any pickle, which runs the code in it: only for a file that you would run",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace DST where it exists")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = _parser().parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())

"""``predict``."""

import argparse
import json
from pathlib import Path

from .common import REFUSALS, add_parser, refuse

__all__ = ["add_commands"]


def add_commands(commands) -> None:
    """Add it to a parser's subcommands."""
    parser = add_parser(commands, "predict", _predict)
    parser.add_argument("sources", nargs="+", metavar="IMAGE", help="picture files")
    parser.add_argument(
        "--checkpoint", required=True, metavar="FILE", help="a checkpoint, or a run's output folder"
    )
    parser.add_argument("--out", default="predictions", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--score-threshold", type=float, default=0.5, metavar="P")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, …; default: a GPU if any")
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="compile the model first: the first picture takes a minute, the others less time",
    )
    parser.add_argument("--json", action="store_true", help="print the detections as JSON")


def _predict(args: argparse.Namespace) -> int:
    from PIL import Image

    from detectron2.data.detection_utils import read_image

    from ..predictor import Predictor

    try:
        predictor = Predictor(
            args.checkpoint,
            device=args.device,
            score_threshold=args.score_threshold,
            optimize=args.optimize,
        )
        missing = [source for source in args.sources if not Path(source).is_file()]
        if missing:
            raise FileNotFoundError(f"no such file: {', '.join(missing)}")
    except REFUSALS as error:
        return refuse(error)
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

"""``zoo``: models and their weights."""

import argparse
import dataclasses
import json

from .common import REFUSALS, fail, refuse, say

__all__ = ["zoo"]

_ZOO_LEGEND = """\
AP and PQ are quoted, of COCO val2017 at one scale; each gain is over the same recipe on a ResNet of
the same depth. Parameters are measured.

  its weights, its commands:  resnest-d2 zoo NAME
  evaluate a published one:   resnest-d2 train --eval-only --verify --config-file NAME \\
                                  MODEL.WEIGHTS resnest://NAME
  train it:                   resnest-d2 train --config-file NAME --num-gpus 8"""


def zoo(args: argparse.Namespace) -> int:
    from .. import model_zoo
    from ..model_zoo.catalog_tables import describe_model, describe_weights, model_table

    words = args.words
    if words[:1] == ["download"]:
        return _zoo_download(words[1:], args)
    try:
        if len(words) > 1:
            raise ValueError(f"zoo takes one NAME, got {' '.join(words)}")
        if args.sha256:
            raise ValueError("--sha256 is for zoo download NAME")
        if not words:
            models = model_zoo.list_models(args.task, args.backbone, args.min_ap)
            found = [_record(model) for model in models]
            text = f"{model_table(models)}\n\n{_ZOO_LEGEND}" if models else "no model fits"
        elif words[0] in model_zoo.MODELS or words[0] not in model_zoo.WEIGHTS:
            model = model_zoo.find_model(words[0])
            found, text = _record(model), describe_model(model)
        else:
            file = model_zoo.WEIGHTS[words[0]]
            found, text = dataclasses.asdict(file), describe_weights(file)
    except REFUSALS as error:
        return refuse(error)
    say(json.dumps(found, indent=2) if args.json else text)
    return 0


def _record(model) -> dict:
    from ..model_zoo import WEIGHTS

    derived = ("recipe", "gains", "train_command", "eval_command")
    return {
        **dataclasses.asdict(model),
        **{name: getattr(model, name) for name in derived},
        "weight_file": dataclasses.asdict(WEIGHTS[model.weights]) if model.weights else None,
    }


def _zoo_download(names: list[str], args: argparse.Namespace) -> int:
    from ..model_zoo import DownloadError, fetch

    try:
        if len(names) != 1:
            raise ValueError("zoo download takes one NAME, as in MODEL.WEIGHTS resnest://NAME")
        path = fetch(names[0], sha256=args.sha256, progress=not args.quiet)
    except REFUSALS as error:
        return refuse(error)
    except DownloadError as error:
        return fail(error)
    say(json.dumps({"file": str(path)}, indent=2) if args.json else path)
    return 0

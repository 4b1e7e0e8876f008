#!/usr/bin/env python
"""Measure what the models of the catalog cost, into resnest_d2/model_zoo/measured.json.

Without --latency: parameters of every model, multiply-adds of every backbone for an 800 x 1088
image (COCO's usual shape at a short side of 800, padded), of every whole model for semantic
segmentation for one window of its evaluation, and of every classifier at 224 pixels and at the size
that its accuracy was published for. With it: the CPU latency of the same networks instead, of one
image, in eager float32; classifiers at 224 pixels only. Run that on a quiet machine. Each keeps
what the other measured. Afterwards: tools/make_model_zoo.py.
"""

import argparse
import datetime
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from detectron2.modeling import build_model  # noqa: E402

from resnest_d2 import ResNeSt, model_zoo  # noqa: E402
from resnest_d2.benchmark import (  # noqa: E402
    count_multiply_adds,
    count_params,
    describe_environment,
    measure_latency,
)
from resnest_d2.files import write_text  # noqa: E402

FILE = ROOT / "resnest_d2" / "model_zoo" / "measured.json"
IMAGE_SIZE = (800, 1088)
CROP = 224


def backbones() -> dict:
    """Name -> function that builds it, as the first detector of the catalog that has it does."""
    built = {}
    for model in model_zoo.list_models():
        if model.task not in ("semantic", "classification"):
            built.setdefault(model.backbone, lambda model=model: build_backbone(model))
    return built


def whole_models() -> Iterator[tuple[str, torch.nn.Module, tuple[int, int]]]:
    """Models that cost the same for all images of a size: name, model, height and width."""
    others = [
        model
        for model in model_zoo.list_models("classification")
        if model.name.removeprefix("classify_") not in model_zoo.CLASSIFIERS
    ]
    for model in (*model_zoo.list_models("semantic"), *others):
        cfg = model_zoo.get_config(model.name, ["MODEL.DEVICE", "cpu"])
        side = cfg.RESNEST.SEGMENT.WINDOW
        if model.task == "classification":
            side = cfg.RESNEST.CLASSIFIER.TEST_SIZE
        yield model.name, build_model(cfg).eval(), (side, side)


def build_backbone(model: model_zoo.Model) -> torch.nn.Module:
    """The network under the FPN, with all of its stages and in evaluation mode."""
    stages = "['res2','res3','res4','res5']"
    opts = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.OUT_FEATURES", stages]
    return build_model(model_zoo.get_config(model.name, opts)).backbone.bottom_up.eval()


def build_classifier(name: str) -> torch.nn.Module:
    return ResNeSt.from_variant(name, num_classes=1000, out_features=("linear",)).eval()


def count() -> dict:
    models, measured, classifiers = {}, {}, {}
    for name in (model.name for model in model_zoo.list_models()):
        with torch.device("meta"):  # parameters need no memory
            cfg = model_zoo.get_config(name, ["MODEL.DEVICE", "meta"])
            models[name] = {"params": count_params(build_model(cfg))}
    with torch.inference_mode():
        for name, build in backbones().items():
            print(name)
            measured[name] = {
                "multiply_adds": count_multiply_adds(build(), torch.zeros(1, 3, *IMAGE_SIZE))
            }
        for name, model, size in whole_models():
            print(name)
            image = {"image": torch.zeros(3, *size)}
            models[name] |= {
                "image_size": size,
                "multiply_adds": count_multiply_adds(model, [image]),
            }
        for classifier in model_zoo.CLASSIFIERS.values():
            print(classifier.name, "as a classifier")
            network = build_classifier(classifier.name)
            classifiers[classifier.name] = {
                "params": count_params(network),
                "multiply_adds": {
                    str(size): count_multiply_adds(network, torch.zeros(1, 3, size, size))
                    for size in sorted({CROP, classifier.crop})
                },
            }
    return {
        "image_size": IMAGE_SIZE,
        "models": models,
        "backbones": measured,
        "classifiers": classifiers,
    }


def time(runs: int) -> dict:
    def median(network: torch.nn.Module, inputs) -> float:
        return round(statistics.median(measure_latency(lambda: network(inputs), runs=runs)), 1)

    measured, models, classifiers = {}, {}, {}
    with torch.inference_mode():
        for name, build in backbones().items():
            measured[name] = median(build(), torch.randn(1, 3, *IMAGE_SIZE))
            print(f"{name}: {measured[name]:.0f} ms")
        for name, model, size in whole_models():
            models[name] = median(model, [{"image": 255 * torch.rand(3, *size)}])
            print(f"{name}: {models[name]:.0f} ms")
        for name in model_zoo.CLASSIFIERS:
            classifiers[name] = median(build_classifier(name), torch.randn(1, 3, CROP, CROP))
            print(f"{name} as a classifier: {classifiers[name]:.0f} ms")
    return {
        "runs": runs,
        "image_size": IMAGE_SIZE,
        "backbones": measured,
        "models": models,
        "classifiers": classifiers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latency", action="store_true", help="measure latency, not counts")
    parser.add_argument("--runs", type=int, default=10, help="timed runs; default: %(default)s")
    args = parser.parse_args()
    section = {
        "command": " ".join(["python tools/measure_zoo.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "environment": describe_environment(),
        **(time(args.runs) if args.latency else count()),
    }
    measured = {**model_zoo.MEASURED, "latency" if args.latency else "counts": section}
    write_text(FILE, json.dumps(measured, indent=1) + "\n")
    print(f"written: {FILE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

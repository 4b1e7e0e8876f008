#!/usr/bin/env python
"""Measure what the models of the catalog cost, into resnest_d2/model_zoo/measured.json.

Without --latency: parameters of every model, multiply-adds of every backbone for an 800 x 1088
image (COCO's usual shape at a short side of 800, padded) and of every classifier at 224 pixels and
at the size that its accuracy was published for. With it: the CPU latency of the same networks
instead, of one image, in eager float32; classifiers at 224 pixels only. Run that on a quiet
machine. Each keeps what the other measured. Models for semantic segmentation are left out.
Afterwards: tools/make_model_zoo.py.
"""

import argparse
import datetime
import json
import statistics
import sys
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


def detectors() -> list[model_zoo.Model]:
    """Models whose backbone is measured as it is; that of a segmentation model is dilated."""
    return [model for model in model_zoo.list_models() if model.task != "semantic"]


def backbones() -> dict:
    """Name -> function that builds it, as the first model of the catalog that has it does."""
    built = {}
    for model in detectors():
        built.setdefault(model.backbone, lambda model=model: build_backbone(model))
    return built


def build_backbone(model: model_zoo.Model) -> torch.nn.Module:
    """The network under the FPN, with all of its stages and in evaluation mode."""
    stages = "['res2','res3','res4','res5']"
    opts = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.OUT_FEATURES", stages]
    return build_model(model_zoo.get_config(model.name, opts)).backbone.bottom_up.eval()


def build_classifier(name: str) -> torch.nn.Module:
    return ResNeSt.from_variant(name, num_classes=1000, out_features=("linear",)).eval()


def count() -> dict:
    models, measured, classifiers = {}, {}, {}
    for name in (model.name for model in detectors()):
        with torch.device("meta"):  # parameters need no memory
            cfg = model_zoo.get_config(name, ["MODEL.DEVICE", "meta"])
            models[name] = {"params": count_params(build_model(cfg))}
    with torch.inference_mode():
        for name, build in backbones().items():
            print(name)
            measured[name] = {
                "multiply_adds": count_multiply_adds(build(), torch.zeros(1, 3, *IMAGE_SIZE))
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
    def median(network: torch.nn.Module, *size: int) -> float:
        image = torch.randn(1, 3, *size)
        return round(statistics.median(measure_latency(lambda: network(image), runs=runs)), 1)

    measured, classifiers = {}, {}
    with torch.inference_mode():
        for name, build in backbones().items():
            measured[name] = median(build(), *IMAGE_SIZE)
            print(f"{name}: {measured[name]:.0f} ms")
        for name in model_zoo.CLASSIFIERS:
            classifiers[name] = median(build_classifier(name), CROP, CROP)
            print(f"{name} as a classifier: {classifiers[name]:.0f} ms")
    return {
        "runs": runs,
        "image_size": IMAGE_SIZE,
        "backbones": measured,
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

#!/usr/bin/env python
"""Write MODEL_ZOO.md, its chart docs/accuracy_cost.png, and model_zoo/catalog.json.

All from the catalog, resnest_d2/model_zoo. ``resnest-d2 zoo`` reads the last one.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from resnest_d2.checkpoint.statistics import DETECTOR  # noqa: E402
from resnest_d2.files import write_text, writing  # noqa: E402
from resnest_d2.model_zoo import CLASSIFIERS, MEASURED, WEIGHTS, Classifier, Model, list_models  # noqa: E402
from resnest_d2.text import text_table  # noqa: E402

PAGE = ROOT / "MODEL_ZOO.md"
CHART = ROOT / "docs" / "accuracy_cost.png"
SUMMARY = ROOT / "docs" / "evidence" / "summary.md"
CATALOG = ROOT / "resnest_d2" / "model_zoo" / "catalog.json"
BENCHMARKS = {
    "variants": "Classifiers",
    "backbone": "Backbone",
    "mask_rcnn": "Mask R-CNN",
    "cascade_mask_rcnn": "Cascade Mask R-CNN",
}

TITLES = {
    "detection": "Object detection",
    "instance": "Instance segmentation",
    "keypoints": "Keypoints",
    "panoptic": "Panoptic segmentation",
    "semantic": "Semantic segmentation",
    "classification": "Classification",
}
NOT_MEASURED = "not yet measured"
FAMILY = [item for item in CLASSIFIERS.values() if "fast" not in item.name]
ABLATION = [item for item in CLASSIFIERS.values() if "fast" in item.name]

INTRODUCTION = """\
<!-- Written by tools/make_model_zoo.py from resnest_d2/model_zoo. Change those, then run it. -->
# Model zoo

To see what a ResNeSt gains for your detector, say a Mask R-CNN with a ResNet-50, find it in the
tables: the row below it is the same recipe on a ResNeSt-50, with its gain and its cost.

```
resnest-d2 zoo list --task instance                 # these tables, in the terminal
resnest-d2 zoo show mask_rcnn_resnest50_fpn         # one model: weights, mirrors, commands
resnest-d2 zoo download mask_rcnn_resnest50_fpn     # its trained weights, verified
resnest-d2 train --config-file mask_rcnn_resnest50_fpn --num-gpus 8
```

```python
import resnest_d2

model = resnest_d2.model_zoo.get("mask_rcnn_resnest50_fpn")  # trained, in evaluation mode
```

## How to read the tables

Each column is either quoted or measured, as its heading says.

- **Quoted**: printed by others. AP and PQ (0–100) are rows of the original plugin's README: COCO
  val2017, one scale. mIoU and pixel accuracy are rows of PyTorch-Encoding's model zoo: several
  scales, with `RESNEST.SEGMENT`. Top-1 is of ImageNet's validation set, one centre crop. This
  project has not trained or evaluated on the whole of COCO, ADE20K, Pascal Context or ImageNet.
- **gain**: the row minus the row of its baseline, the same recipe (head, norm, schedule, data) on
  a ResNet of the same depth. (For Mask R-CNN, box gains of 2.85 and 4.03 with ResNeSt-50 and 101
  are quoted elsewhere. The rows give 2.84 and 3.97, and rows are what is printed here.)
- **Measured**: by this project; command, hardware, versions and date are at the [end](#measured).
  Parameters are the whole model's. Multiply-adds (convolutions and linear layers; papers call
  them FLOPs) and latency of a detector are the backbone's alone, without the FPN, for one image of
  {height} × {width} pixels, which is what COCO's usual shape becomes at a short side of 800. Those
  of semantic segmentation are the whole model's, for one window of {window} × {window} pixels, and
  those of a classifier the whole network's, at the crop that its accuracy is quoted for.
- "–" means that there is no such value.

The command of a row evaluates its published weights on the validation data of the recipe and exits
with 1 if a result differs from the quoted value by more than 0.2. Add `--num-gpus 8` for 8 GPUs.
"""

GAINS = """\
## Gains, quoted and measured

![Quoted gains on COCO, and measured gains with their intervals](docs/evidence/gains.png)

{summary}
Every run, and how to repeat it: [docs/evidence/results.md](docs/evidence/results.md).
"""

UNPUBLISHED = """\
## Recipes without published results

Nothing was published for these, and this project has not trained them on the whole of COCO.
"""

IMAGENET = """\
## ImageNet

The same networks as classifiers, with 1000 classes. Accuracy is of the released PyTorch weights on
one centre crop of the given side; those of ResNeSt-14 and 26 are timm's. Latency is of one image of
224 × 224 pixels.

![Accuracy over multiply-adds and over parameters](docs/accuracy_cost.png)
"""

SPEED = """\
## Speed

Networks of one table were measured in turn in one process by `resnest-d2 benchmark`; settings and
all runs are in the `.json` beside each table. `+optimized` is
[`optimize_for_inference`](docs/inference.md), which uses bfloat16 where it is faster; the ratio is
the last row's time divided by the row's. Detectors have random weights and detect 100 objects.
"""

ABLATED = """\
### Radix and cardinality

The paper's ablation: `4s2x40d` has radix 4, cardinality 2 and groups of 40 channels in its first
stage. All are "fast" variants, which pool before the split attention, at 224 × 224 pixels. The
quoted G count a little more than convolutions and linear layers. `1s1x64d` is quoted with 26.3 M
parameters; it has {exact:,}.
"""

FILES = """\
## Weights

Names for `MODEL.WEIGHTS resnest://NAME` and `resnest-d2 zoo download NAME`, besides the trained
models above. The hash is the part of the sha256 in the published file name; images are RGB, with
mean and standard deviation of the original plugin (`plugin`) or of ImageNet classifiers
(`classifier`). `resnest-d2 zoo show NAME` shows a file's mirrors. This project has not tried the
links; reports of others are in the notes. The licence is the publishing project's. Not usable here,
and left out: the MXNet files of the official Gluon models, and MMDetection's detectors.
"""


def number(value: float | None, form: str, missing: str = "–") -> str:
    return missing if value is None else format(value, form)


def latency(measured) -> str:
    return number(measured.latency_ms, ".0f", NOT_MEASURED)


COSTS = ["M parameters, measured", "G multiply-adds, measured", "CPU ms, measured"]


def models_table(models: list[Model]) -> str:
    """Rows of one task that have published results, and those results that the task has."""
    results = {"box_ap": "box AP", "mask_ap": "mask AP", "pq": "PQ", "miou": "mIoU"}
    results |= {"pixel_accuracy": "pixel accuracy", "top1": "top-1 %"}
    published = [model.published for model in models]
    results = {
        key: label
        for key, label in results.items()
        if any(getattr(row, key) is not None for row in published)
    }
    gained = [key for key in results if any(key in model.gains for model in models)]
    headers = ["recipe"]
    for key, label in results.items():
        headers += [f"{label}, quoted"] + (["gain, quoted"] if key in gained else [])
    rows = []
    for model in models:
        row = [f"`{model.name}`"]
        for key in results:
            row.append(number(getattr(model.published, key), ".2f"))
            if key in gained:
                row.append(number(model.gains.get(key), "+.2f"))
        rows.append(row + costs(model))
    return text_table(rows, headers + COSTS)


def costs(model: Model) -> list[str]:
    cost = model.measured
    if cost is None:
        return [NOT_MEASURED] * 3
    return [f"{cost.params / 1e6:.1f}", f"{cost.multiply_adds / 1e9:.1f}", latency(cost)]


def initial_weights(model: Model) -> str:
    return f"`{model.initial_weights}`" if model.initial_weights else "random weights"


def unpublished_table(models: list[Model]) -> str:
    rows = [
        [f"`{model.name}`", model.task, initial_weights(model), *costs(model)] for model in models
    ]
    return text_table(rows, ["recipe", "task", "starts from", *COSTS], left=3)


def family_table() -> str:
    headers = ["network", "crop, quoted", "top-1 %, quoted", "M parameters, measured"]
    headers += ["G multiply-adds at the crop, measured", "at 224, measured", "CPU ms, measured"]
    rows = []
    for item in FAMILY:
        crop, small = item.measured(item.crop), item.measured(224)
        row = [f"`{item.name}`", str(item.crop), f"{item.top1:.2f}", f"{crop.params / 1e6:.2f}"]
        row += [f"{cost.multiply_adds / 1e9:.2f}" for cost in (crop, small)]
        rows.append([*row, latency(small)])
    return text_table(rows, headers)


def ablation_table() -> str:
    headers = ["network", "radix", "cardinality", "width", "top-1 %, quoted"]
    headers += ["M parameters, quoted", "M parameters, measured"]
    headers += ["G, quoted", "G multiply-adds, measured", "CPU ms, measured"]
    rows = []
    for item in ABLATION:
        cost = item.measured(224)
        row = [f"`{item.name}`", *map(str, (item.radix, item.cardinality, item.width))]
        row += [f"{item.top1:.2f}", f"{item.quoted_params:.1f}", f"{cost.params / 1e6:.1f}"]
        row += [f"{item.quoted_multiply_adds:.2f}", f"{cost.multiply_adds / 1e9:.2f}"]
        rows.append([*row, latency(cost)])
    return text_table(rows, headers)


def weights_table() -> str:
    trained = {model.weights for model in list_models()}
    rows = []
    for file in WEIGHTS.values():
        if file.name not in trained:
            kind = "plugin" if file.statistics == DETECTOR else "classifier"
            digits = f"`{file.sha256}`" if file.sha256 else "–"
            note = file.note or "–"
            rows.append([f"`{file.name}`", file.format, kind, digits, file.license, note])
    return text_table(rows, ["name", "format", "images", "hash", "licence", "note"], left=6)


def benchmarks() -> Iterable[str]:
    """Tables and charts that ``resnest-d2 benchmark --out docs/benchmark/NAME`` wrote."""
    for name, title in BENCHMARKS.items():
        folder = f"docs/benchmark/{name}"
        yield f"### {title}\n"
        yield (ROOT / folder / "benchmark.md").read_text(encoding="utf-8")
        yield f"![{title}: latency]({folder}/benchmark.png)\n"


def sections() -> Iterable[str]:
    """The page's paragraphs and tables, in order."""
    height, width = MEASURED["counts"]["image_size"]
    everything = list_models()
    (window,) = {side for model in list_models("semantic") for side in model.measured.image_size}
    yield INTRODUCTION.format(height=height, width=width, window=window)
    yield GAINS.format(summary=SUMMARY.read_text(encoding="utf-8"))
    for task, title in TITLES.items():
        models = [model for model in everything if model.task == task and model.published]
        if models:
            yield f"## {title}\n"
            yield models_table(models) + "\n"
            commands = "\n".join(model.eval_command for model in models)
            yield f"Evaluate a row, in the same order:\n\n```\n{commands}\n```\n"
    others = [model for model in everything if not model.published]
    yield UNPUBLISHED
    yield unpublished_table(others) + "\n"
    yield "\n".join(f"- `{model.name}`: {model.note}." for model in others if model.note) + "\n"
    yield IMAGENET
    yield family_table() + "\n"
    exact = CLASSIFIERS["resnest50_fast_1s1x64d"].measured(224).params
    yield ABLATED.format(exact=exact)
    yield ablation_table() + "\n"
    yield SPEED
    yield from benchmarks()
    yield FILES
    yield weights_table() + "\n"
    yield "## Measured\n"
    for key, what in (("counts", "Parameters and multiply-adds"), ("latency", "CPU latency")):
        section = MEASURED[key]
        if section is None:
            yield f"{what}: not yet measured (`python tools/measure_zoo.py --latency`).\n"
            continue
        where = ", ".join(f"{name} {value}" for name, value in section["environment"].items())
        how = ""
        if key == "latency":
            how = f" Median of {section['runs']} runs of one image, eager float32."
        yield f"{what}: `{section['command']}`, {section['date']}.{how} {where}.\n"


def page() -> str:
    """The text of MODEL_ZOO.md."""
    return "\n".join(sections())


def catalog() -> str:
    """The text of catalog.json."""

    def lines(records: Iterable[dict]) -> str:  # one a record
        return ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)

    models = lines(model.record() for model in list_models())
    weights = lines(map(dataclasses.asdict, WEIGHTS.values()))
    measured = json.dumps(MEASURED["counts"]["date"])
    return f'{{"measured": {measured}, "models": [\n{models}\n], "weights": [\n{weights}\n]}}\n'


def short(item: Classifier) -> str:
    """ResNeSt-50, or 4s2x40d."""
    name = item.name.rpartition("_")[2]
    return name if "fast" in item.name else name.replace("resnest", "ResNeSt-")


def draw(chart: Path) -> None:
    """Accuracy over multiply-adds for the depths, over parameters for the ablation."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    figure.suptitle("ImageNet accuracy (quoted) over cost (measured)")

    points = [(item.measured(item.crop).multiply_adds / 1e9, item.top1) for item in FAMILY]
    left.plot(*zip(*points, strict=True), "o-", color="C0", zorder=2)
    for item, point in zip(FAMILY, points, strict=True):
        text = f"{short(item)} ({item.crop} px)"
        left.annotate(text, point, (9, -3), textcoords="offset points", va="top", fontsize=9)
    left.set_xscale("log")
    ticks = [2, 5, 10, 20, 50, 100, 200, 500]
    left.set_xticks(ticks, [str(tick) for tick in ticks])
    left.set_xlim(2, 800)
    left.set_ylim(74, 85.5)
    left.set(
        title="Depth (and side of the crop)",
        xlabel="multiply-adds of one crop, 10⁹ (log scale)",
        ylabel="top-1 accuracy, %",
    )

    markers, colours = {1: "o", 2: "s", 4: "^"}, {1: "#56b4e9", 2: "#e69f00", 4: "#b2182b"}
    above = {"resnest50_fast_1s2x40d", "resnest50_fast_1s4x24d"}  # their right side is taken
    for item in ABLATION:
        point = (item.measured(224).params / 1e6, item.top1)
        right.scatter(
            *point, s=60, marker=markers[item.cardinality], color=colours[item.radix], zorder=2
        )
        offset, side = ((0, 8), "center") if item.name in above else ((9, -3), "left")
        right.annotate(short(item), point, offset, textcoords="offset points", ha=side, fontsize=9)
    for radix, colour in colours.items():
        right.scatter([], [], marker="D", color=colour, label=f"radix {radix}")
    for cardinality, marker in markers.items():
        right.scatter([], [], marker=marker, color="0.5", label=f"cardinality {cardinality}")
    right.legend(loc="lower right", ncols=2, fontsize=9)
    right.set_xlim(25, 34)
    right.set_ylim(79.9, 81.35)
    right.set(
        title="Radix and cardinality, at 4.3–4.4 · 10⁹ multiply-adds",
        xlabel="parameters, 10⁶",
        ylabel="top-1 accuracy, %",
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
    chart.parent.mkdir(exist_ok=True)
    with writing(chart) as file:
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    draw(CHART)
    write_text(PAGE, page())
    write_text(CATALOG, catalog())
    print("written:", *(path.relative_to(ROOT) for path in (PAGE, CHART, CATALOG)))


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Write docs/evidence/results.md, summary.md and gains.png, from what is kept of the studies there.

``--keep DIR`` first copies config, log and metrics of the runs that are finished, and the
comparisons, from DIR, which has the folder of each study.
"""

import argparse
import csv
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from matplotlib.figure import Figure  # noqa: E402

from resnest_d2.analysis.comparing.comparison import Gain  # noqa: E402
from resnest_d2.analysis.comparing.comparison_text import gain_cells, gain_headers  # noqa: E402
from resnest_d2.analysis.task_texts import TASKS  # noqa: E402
from resnest_d2.draw.charts import save_chart  # noqa: E402
from resnest_d2.draw.gains import draw_gains  # noqa: E402
from resnest_d2.files import write_text  # noqa: E402
from resnest_d2.model_zoo import list_models  # noqa: E402
from resnest_d2.study import read_study  # noqa: E402
from resnest_d2.text import text_table  # noqa: E402

EVIDENCE = ROOT / "docs" / "evidence"
STUDIES = {
    "classification": "Tiny-ImageNet",
    "classification_long": "Tiny-ImageNet after 8 epochs",
    "nuclei": "images of nuclei",
    "nuclei_long": "images of nuclei after 1,000 steps",
    "nuclei_pretrained": "images of nuclei from pretrained weights",
    "camvid": "CamVid",
    "shapes": "drawn shapes",
}
"""Their data, by the names of their files and folders."""

METRICS = {
    "bbox": "box AP",
    "segm": "mask AP",
    "sem_seg": "mIoU",
    "classification": "top-1",
}
RUN_FILES = ("config.yaml", "log.txt", "metrics.json", "results.json")

INTRODUCTION = """\
<!-- Written by tools/make_evidence.py from the studies beside this file. -->
# Results of the studies

{verdict}

{summary}
![Quoted gains on COCO, and measured gains with their intervals](gains.png)

What was trained and why is in [the plan](plan.md), with the commands
[to repeat a run](plan.md#how-to-repeat-it). Metrics are those after the last step, 0 to 100. A gain
is the mean of the runs of one network less that of the baseline, and
[its interval](../comparing.md#what-the-interval-means) covers the choice of images and of seeds.
Costs are the backbone's, as multiples of the baseline's.
"""


def keep(source: Path) -> None:
    """Copy the small files of all studies."""
    files = []
    for name in STUDIES:
        study = source / name
        files += [*study.glob("runs.csv"), *study.glob("*/comparison.*"), *study.glob("*/*.png")]
        for results in study.glob("*/*/results.json"):
            files += [results.with_name(name) for name in RUN_FILES]
    for file in files:
        target = EVIDENCE / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".png":
            shutil.copyfile(file, target)
        else:
            write_text(target, without_paths(file.read_text(encoding="utf-8"), source))


def without_paths(text: str, source: Path) -> str:
    """The text of a log or a config without colours and this machine's folders.

    A log is also without its copy of ``config.yaml``, which is half of it.
    """
    text = re.sub(r"\x1b\[[\d;]*m", "", text)
    text = re.sub(r"@/\S*/site-packages/", "@", text)
    text = re.sub(r"(Running with full config:\n).*?(?=^\[\d)", r"\1", text, flags=re.S | re.M)
    return text.replace(f"{source.resolve()}/", "")


def read_comparisons(study: Path) -> list[dict[str, Any]]:
    """The comparisons of a study that have been made, in the order of their names."""
    return [json.loads(file.read_text()) for file in sorted(study.glob("*/comparison.json"))]


def main_gains(comparison: dict[str, Any]) -> dict[str, Gain]:
    """The gain in the main metric, by task."""
    return {
        task: Gain(**found["metrics"][TASKS[task].main])
        for task, found in comparison["tasks"].items()
    }


def group_names(comparison: dict[str, Any]) -> tuple[str, str]:
    """Baseline and other."""
    return tuple(comparison["runs"][side]["name"] for side in ("baseline", "other"))


def gains_table(study: Path, comparisons: list[dict[str, Any]]) -> str:
    """One row per comparison and task, with the ratio of the costs."""
    headers = ["network", "baseline", "metric", "runs", "baseline's", "network's"]
    headers += [*gain_headers(0.95), "parameters", "multiply-adds"]
    rows = []
    for comparison in comparisons:
        baseline, other = group_names(comparison)
        runs = [str(len(comparison["runs"][side]["runs"])) for side in ("other", "baseline")]
        cost = comparison["cost"]
        ratios = [
            f"× {cost['other'][key] / cost['baseline'][key]:.2f}"
            for key in ("backbone_params", "multiply_adds")
        ]
        link = f"[{other}]({study.name}/{other}-against-{baseline}/comparison.md)"
        for task, gain in main_gains(comparison).items():
            metric = f"{TASKS[task].name}: {TASKS[task].main}"
            row = [link, baseline, metric, " / ".join(runs)]
            row += [f"{gain.baseline:.1f}", f"{gain.other:.1f}", *gain_cells(gain)]
            rows.append(row + ratios)
    return text_table(rows, headers)


def read_runs(study: Path) -> list[dict[str, str]]:
    """The rows of runs.csv."""
    with open(study / "runs.csv", newline="") as file:
        return list(csv.DictReader(file))


def runs_table(study: Path, runs: list[dict[str, str]]) -> str:
    """The finished runs, each with a link to its log."""
    rows = []
    for run in runs:
        log = f"[log]({study.name}/{run['group']}/{run['seed']}/log.txt)"
        rows.append([*run.values(), log])
    return text_table(rows, [*runs[0], ""])


def sections() -> Iterable[str]:
    """The page's paragraphs and tables, in order."""
    yield INTRODUCTION.format(verdict=verdict(), summary=summary())
    for name in STUDIES:
        file = EVIDENCE / f"{name}.yaml"
        title = file.read_text().split("\n")[0].removeprefix("# ").rstrip(".")
        yield f"## {title}\n"
        yield f"[{file.name}]({file.name})\n"
        study = EVIDENCE / name
        if not (study / "runs.csv").is_file():
            yield "Not run yet.\n"
            continue
        comparisons, runs = read_comparisons(study), read_runs(study)
        yield f"{gains_table(study, comparisons) if comparisons else 'Not finished.'}\n"
        hours = sum(float(run["minutes"]) for run in runs) / 60
        yield f"Runs, {hours:.1f} hours together:\n"
        yield runs_table(study, runs) + "\n"


def verdict() -> str:
    """How many gains are shown, and the names of those that are not."""
    gains = measured_gains()
    if not gains:
        return "**No study is finished yet: nothing is measured of a gain.**"
    shown = [name for name, gain in gains if gain.is_clear and gain.gain > 0]
    lost = [name for name, gain in gains if gain.is_clear and gain.gain < 0]
    unclear = [name for name, gain in gains if not gain.is_clear]
    text = f"**Expected gains that are shown (interval above 0): {len(shown)} of {len(gains)}.**"
    if lost:
        text += f" A loss is shown (interval below 0) for {'; '.join(lost)}."
    if unclear:
        text += f" Nothing is shown (the interval contains 0) for {'; '.join(unclear)}."
    return textwrap.fill(text, 100)


def summary() -> str:
    """Quoted and measured gains in three sentences, which README.md and MODEL_ZOO.md have too."""
    quoted = [
        f"{min(gains):.1f} to {max(gains):.1f} more {name}"
        for key, name in {"box_ap": "box AP", "mask_ap": "mask AP"}.items()
        if (gains := [model.gains[key] for model in list_models() if key in model.gains])
    ]
    measured, shown = [], 0
    for name, data in STUDIES.items():
        baseline, other = read_study(EVIDENCE / f"{name}.yaml").comparisons[0][:2]
        file = EVIDENCE / name / f"{other}-against-{baseline}" / "comparison.json"
        if file.is_file():
            for task, gain in main_gains(json.loads(file.read_text())).items():
                value = f"{gain.gain:+.1f} {METRICS[task]} on {data}"
                measured.append(f"{value} ({gain.low:+.1f} to {gain.high:+.1f})")
                shown += gain.low > 0
    found = "no study is finished yet"
    if measured:
        found = f"ResNeSt minus ResNet is {', '.join(measured)}; {shown} of {len(measured)} "
        found += "intervals above 0"
    sentences = (
        "**Quoted**: on COCO, with the same detector and schedule, the authors' ResNeSt has "
        f"{' and '.join(quoted)} than a ResNet of the same depth.",
        "**Measured** here, on small data, in few steps, with 95 % intervals over images and "
        f"seeds: {found}.",
        "The two cannot be compared: the sizes of data, images and networks differ.",
    )
    return "".join(textwrap.fill(text, 100) + "\n" for text in sentences)


def page() -> str:
    """The text of results.md."""
    return "\n".join(sections())


def quoted_gains() -> list[tuple[str, Gain]]:
    """Gains in AP on COCO that the authors print, without intervals."""
    labels = {"box_ap": "boxes", "mask_ap": "masks"}
    return [
        (f"{model.name.removesuffix('_fpn')} ({label})", Gain(0, gain, gain, gain, gain))
        for model in list_models()
        for key, label in labels.items()
        if (gain := model.gains.get(key)) is not None
    ]


def measured_gains() -> list[tuple[str, Gain]]:
    """The gains of all studies in their main metrics."""
    gains = []
    for name in STUDIES:
        for comparison in read_comparisons(EVIDENCE / name):
            baseline, other = group_names(comparison)
            for task, gain in main_gains(comparison).items():
                gains.append((f"{name}: {other} over {baseline} ({TASKS[task].name})", gain))
    return gains


def draw(chart: Path) -> None:
    """Quoted gains beside the measured ones."""
    quoted, measured = quoted_gains(), measured_gains()
    rows = max(len(quoted), len(measured), 4)
    figure = Figure(figsize=(12, 1.9 + 0.27 * rows), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, gains, title in (
        (left, quoted, "Quoted from the authors: COCO, AP"),
        (right, measured, "Measured here: small data, few steps"),
    ):
        draw_gains(axes, gains)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("gain over a ResNet, in points", fontsize=8)
    note = "Right: 95% intervals; filled: 0 is excluded. The authors print no intervals."
    save_chart(figure, chart, title="Gains of ResNeSt", note=note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", metavar="DIR", type=Path, help="copy the studies from DIR first")
    source = parser.parse_args().keep
    if source:
        keep(source)
    draw(EVIDENCE / "gains.png")
    write_text(EVIDENCE / "results.md", page())
    write_text(EVIDENCE / "summary.md", summary())
    print("written: results.md, summary.md and gains.png in docs/evidence")


if __name__ == "__main__":
    main()

"""The parts of a page about detectors: AP, curves, kinds of errors, confusions, images."""

from typing import Any

from ..analysis.analysed_runs import DetectionStudy
from ..analysis.mistakes import ERRORS, Outcome
from ..analysis.task_texts import TASKS
from ..draw.error_charts import draw_confusion, draw_errors, draw_precision, most_wrong
from ..draw.outcomes import STYLES
from ..evaluation.image_matches import METRICS
from ..progress import progress_bar
from .embed import chart_address
from .gallery import mistake_panels, worst_scenes

_CURVES = 12  # classes with a chart of their own
_PAIRS = 8  # most frequent confusions
_SECTIONS = {
    "ap": "AP",
    "classes": "Classes",
    "training": "Training",
    "precision": "Precision and recall",
    "errors": "Mistakes",
    "confusion": "Confusion",
    "images": "Worst images",
    "false-positives": "False positives",
    "cost": "Cost",
    "config": "Config",
}


def detection_sections(study: DetectionStudy, num_images: int) -> dict[str, Any]:
    """What ``detection.html.j2`` shows.

    Args:
        num_images: number of images, and of false positives of each run.
    """
    boxes = study.analyses["bbox"]
    objects = study.runs[0].truth.coco.dataset["annotations"]
    return {
        "sections": _SECTIONS,
        "objects": sum(not annotation.get("iscrowd") for annotation in objects),
        "metrics": METRICS,
        "outcomes": (Outcome.CORRECT, *ERRORS),
        "tasks": [_task(study, task) for task in study.analyses],
        "scenes": worst_scenes(study.runs, boxes, study.names, num_images),
        "mistakes": [
            {"run": name, "panels": mistake_panels(run, analysis, num_images)}
            for run, name, analysis in zip(study.runs, study.names, boxes, strict=True)
        ],
        "styles": STYLES,
    }


def _task(study: DetectionStudy, task: str) -> dict[str, Any]:
    """Tables and charts of boxes or masks."""
    accuracies, analyses = study.accuracies[task], study.analyses[task]
    metrics = [accuracy.metrics for accuracy in accuracies]
    class_names = study.runs[0].class_names
    numbers = range(len(class_names))
    objects = [analyses[0].by_class[i][0] for i in analyses[0].category_ids]
    frequent = sorted(numbers, key=lambda number: -objects[number])[:_CURVES]
    confused = most_wrong(sum(a.confusion for a in analyses), len(class_names))
    confused = {number: class_names[number] for number in confused}
    lost = f"AP at IoU {analyses[0].iou:g} that each costs"
    return {
        "key": task,
        "name": TASKS[task].name,
        "metrics": metrics,
        # A maximum that is NaN equals no value, so it is not marked.
        "best": {m: max(own[m] for own in metrics) for m in METRICS if len(metrics) > 1},
        "precision": [
            (class_names[number], chart_address(draw_precision(accuracies, analyses, number)))
            for number in progress_bar(sorted(frequent), desc="charts")
        ],
        "errors": [
            chart_address(draw_errors([a.counts for a in analyses], "mistakes", ".0f")),
            chart_address(draw_errors([a.lost_ap for a in analyses], lost, ".1f")),
        ],
        "analyses": analyses,
        "confused": len(confused),
        "confusions": [
            {
                "run": name,
                "chart": chart_address(
                    draw_confusion(
                        analysis.confusion,
                        confused,
                        rows="object of class",
                        columns="detected as",
                        outside=("no object", "no detection"),
                    )
                ),
                "pairs": [
                    (class_names[a], class_names[b], number)
                    for a, b, number in analysis.most_confused(_PAIRS)
                ],
            }
            for name, analysis in zip(study.names, analyses, strict=True)
        ],
    }

"""One HTML file about a run, or several side by side, without script, network or other files.

Its content security policy allows only the embedded images and its own styles. Names of classes,
files and runs are not trusted: the template escapes them, and charts do not read them as formulas.
"""

import datetime
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..analysis.analysed_runs import Study
from ..analysis.comparison_text import value_text
from ..analysis.config_changes import config_changes, network_changes, recipe_changes
from ..analysis.mistakes import ERRORS, Outcome
from ..analysis.task_texts import TASKS
from ..benchmark import RunCost
from ..config import flat_values
from ..draw.charts import RUN_COLORS
from ..draw.error_charts import draw_confusion, draw_errors, draw_precision
from ..draw.loss_curves import draw_losses, draw_metrics, draw_total_losses
from ..draw.outcomes import STYLES
from ..evaluation.image_matches import METRICS
from ..files import writing
from ..progress import progress_bar
from ..version import __version__
from .embed import chart_address
from .gallery import mistake_panels, worst_scenes

if TYPE_CHECKING:
    import jinja2

_CURVES = 12  # classes with a chart of their own
_CONFUSED = 30  # classes in a confusion matrix
_PAIRS = 8  # most frequent confusions
_SETTINGS = """
    MODEL.META_ARCHITECTURE MODEL.BACKBONE.NAME MODEL.RESNETS.DEPTH MODEL.WEIGHTS
    SOLVER.IMS_PER_BATCH SOLVER.MAX_ITER SOLVER.BASE_LR
    INPUT.MIN_SIZE_TRAIN INPUT.MIN_SIZE_TEST SEED
""".split()


def write_report(
    study: Study,
    file: str | os.PathLike,
    *,
    num_images: int = 12,
    costs: Mapping[str, RunCost] | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Write the HTML file.

    Args:
        num_images: number of images, and of false positives of each run.
        costs: by the names of the study; None leaves out speed and cost.
        environment: hardware and versions of the costs.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
        OSError: the file cannot be written.
    """
    template = load_template()
    boxes = study.analyses["bbox"]
    text = template.render(
        **_overview(study),
        **_training(study),
        study=study,
        tasks=[_task(study, task) for task in study.analyses],
        scenes=worst_scenes(study.runs, boxes, study.names, num_images),
        mistakes=[
            {"run": name, "panels": mistake_panels(run, analysis, num_images)}
            for run, name, analysis in zip(study.runs, study.names, boxes, strict=True)
        ],
        styles=STYLES,
        costs=[(name, costs[name]) for name in study.names] if costs else None,
        environment=environment,
        changes=_changes(study),
    )
    with writing(file) as opened:
        opened.write(text.encode("utf-8", "replace"))  # half a surrogate pair has no encoding


def load_template() -> "jinja2.Template":
    """The template of the page; a ModuleNotFoundError if jinja2 is not installed."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a report needs jinja2: pip install 'resnest-d2[report]'", name=error.name
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ap"] = lambda value: "–" if value != value else f"{value:.1f}"
    environment.filters["share"] = lambda part, whole: f"{part / whole:.0%}" if whole else "–"
    return environment.get_template("report.html.j2")


def _overview(study: Study) -> dict[str, Any]:
    first = study.runs[0]
    objects = first.truth.coco.dataset["annotations"]
    values = [flat_values(run.config) for run in study.runs]
    return {
        "names": study.names,
        "colors": RUN_COLORS,
        "objects": sum(not annotation.get("iscrowd") for annotation in objects),
        "classes": first.class_names,
        "size": first.image_size,
        "metrics": METRICS,
        "outcomes": (Outcome.CORRECT, *ERRORS),
        "written": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "version": __version__,
        "settings": [(key, [value_text(own.get(key)) for own in values]) for key in _SETTINGS],
    }


def _training(study: Study) -> dict[str, Any]:
    histories = [run.history for run in study.runs]
    charts = {
        "Total loss over iterations": draw_total_losses(histories),
        "AP over iterations": draw_metrics(histories),
    }
    return {
        "histories": [(text, chart_address(chart)) for text, chart in charts.items() if chart],
        "losses": [
            (name, chart_address(draw_losses(history)))
            for history, name in zip(histories, study.names, strict=True)
            if any(isinstance(line.get("total_loss"), (int, float)) for line in history)
        ],
    }


def _task(study: Study, task: str) -> dict[str, Any]:
    """Tables and charts of boxes or masks."""
    accuracies, analyses = study.accuracies[task], study.analyses[task]
    metrics = [accuracy.metrics for accuracy in accuracies]
    class_names = study.runs[0].class_names
    numbers = range(len(class_names))
    objects = [analyses[0].by_class[i][0] for i in analyses[0].category_ids]
    frequent = sorted(numbers, key=lambda number: -objects[number])[:_CURVES]
    matrix = sum(analysis.confusion for analysis in analyses)
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    confused = sorted(sorted(numbers, key=lambda number: -wrong[number])[:_CONFUSED])
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
                    draw_confusion(analysis, {number: class_names[number] for number in confused})
                ),
                "pairs": [
                    (class_names[a], class_names[b], number)
                    for a, b, number in analysis.most_confused(_PAIRS)
                ],
            }
            for name, analysis in zip(study.names, analyses, strict=True)
        ],
    }


def _changes(study: Study) -> list[dict[str, Any]]:
    """Config keys in which a run differs from the first, with the values of all runs."""
    first, *others = (run.config for run in study.runs)
    different, backbone, recipe = (
        {key for other in others for key in changes(first, other)}
        for changes in (config_changes, network_changes, recipe_changes)
    )
    values = [flat_values(run.config) for run in study.runs]
    return [
        {
            "key": key,
            "kind": "backbone" if key in backbone else "recipe" if key in recipe else "other",
            "values": [value_text(own.get(key)) for own in values],
        }
        for key in sorted(different - {"OUTPUT_DIR"})
    ]

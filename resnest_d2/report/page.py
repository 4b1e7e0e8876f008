"""One HTML file about a run, or several side by side, without script, network or other files.

Its content security policy allows only the embedded images and its own styles. Names of classes,
files and runs are not trusted: the template escapes them, and charts do not read them as formulas.
"""

import datetime
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..analysis.analysed_runs import DetectionStudy, Study
from ..analysis.comparing.comparison_text import value_text
from ..analysis.config_changes import config_changes, network_changes, recipe_changes
from ..benchmark import RunCost
from ..config import flat_values
from ..draw.charts import RUN_COLORS
from ..draw.loss_curves import draw_losses, draw_metrics, draw_total_losses
from ..files import writing
from ..version import __version__
from .confusion_sections import confusion_sections
from .detection_sections import detection_sections
from .embed import chart_address

if TYPE_CHECKING:
    import jinja2

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
        num_images: number of images, and of false positives of each detector.
        costs: by the names of the study; None leaves out speed and cost.
        environment: hardware and versions of the costs.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
        OSError: the file cannot be written.
    """
    if isinstance(study, DetectionStudy):
        template, make = load_template("detection.html.j2"), detection_sections
    else:
        template, make = load_template("confusion.html.j2"), confusion_sections
    text = template.render(
        **make(study, num_images),
        **_overview(study),
        **_training(study),
        study=study,
        costs=[(name, costs[name]) for name in study.names] if costs else None,
        environment=environment,
        changes=_changes(study),
    )
    with writing(file) as opened:
        opened.write(text.encode("utf-8", "replace"))  # half a surrogate pair has no encoding


def load_template(name: str = "report.html.j2") -> "jinja2.Template":
    """A template of a page; a ModuleNotFoundError if jinja2 is not installed."""
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
    return environment.get_template(name)


def _overview(study: Study) -> dict[str, Any]:
    first = study.runs[0]
    values = [flat_values(run.config) for run in study.runs]
    return {
        "names": study.names,
        "colors": RUN_COLORS,
        "classes": first.class_names,
        "size": first.image_size,
        "written": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "version": __version__,
        "settings": [(key, [value_text(own.get(key)) for own in values]) for key in _SETTINGS],
    }


def _training(study: Study) -> dict[str, Any]:
    histories = [run.history for run in study.runs]
    charts = {
        "Total loss over iterations": draw_total_losses(histories),
        "Metrics over iterations": draw_metrics(histories),
    }
    return {
        "histories": [(text, chart_address(chart)) for text, chart in charts.items() if chart],
        "losses": [
            (name, chart_address(draw_losses(history)))
            for history, name in zip(histories, study.names, strict=True)
            if any(isinstance(line.get("total_loss"), (int, float)) for line in history)
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

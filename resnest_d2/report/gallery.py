"""The pictures of a report: where runs are worst, and the false positives they are surest of."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..analysis.evaluated_run import EvaluatedRun
from ..analysis.mistakes import Analysis, ImageOutcomes, Outcome
from ..data.image_reader import PictureError, read_picture
from ..data.intensity import Intensity
from ..draw.outcomes import draw_objects, draw_outcomes, draw_surroundings
from ..progress import progress_bar
from .embed import picture_address

__all__ = ["Panel", "Scene", "mistake_panels", "worst_scenes"]


@dataclass(frozen=True)
class Panel:
    """A picture to embed.

    Attributes:
        title: what it shows, of a scene the run; None the ground truth.
        text: what is in it, in words.
        address: the picture as a ``data:`` address; empty where it could not be read.
    """

    title: str | None
    text: str
    address: str


@dataclass
class Scene:
    """An image of the data: its ground truth, then what each run made of it.

    Attributes:
        notice: why there are no pictures; empty for most.
    """

    name: str
    panels: list[Panel] = field(default_factory=list)
    notice: str = ""


def worst_scenes(
    runs: Sequence[EvaluatedRun], analyses: Sequence[Analysis], names: Sequence[str], count: int
) -> list[Scene]:
    """The images on which the runs are worst together, the worst first; none without a mistake.

    Args:
        analyses: of the runs, of their boxes.
        names: of the runs.
        count: how many.
    """
    badness = {i: sum(a.images[i].badness for a in analyses) for i in analyses[0].images}
    worst = sorted((i for i in badness if badness[i]), key=lambda i: -badness[i])[:count]
    first, scenes = runs[0], []
    classes = _class_names(first)
    for image_id in progress_bar(worst, desc="drawing"):
        scene = Scene(_file_name(first, image_id))
        scenes.append(scene)
        image = _read(first, image_id)
        if isinstance(image, str):
            scene.notice = image
            continue
        objects = [annotation for annotation, _ in analyses[0].images[image_id].objects]
        drawn = draw_objects(image, objects, classes, masks="segm" in first.tasks)
        scene.panels.append(Panel(None, _objects_text(objects, classes), picture_address(drawn)))
        for run, analysis, name in zip(runs, analyses, names, strict=True):
            outcomes = analysis.images[image_id]
            drawn = draw_outcomes(image, outcomes, classes, masks="segm" in run.tasks)
            scene.panels.append(Panel(name, _outcomes_text(outcomes), picture_address(drawn)))
    return scenes


def mistake_panels(run: EvaluatedRun, analysis: Analysis, count: int) -> list[Panel]:
    """The false positives of the highest scores, each in its surroundings.

    Args:
        count: how many.
    """
    panels, classes = [], _class_names(run)
    images: dict[Any, np.ndarray | str] = {}
    for detection in progress_bar(analysis.false_positives()[:count], desc="drawing"):
        image_id = detection.result["image_id"]
        if image_id not in images:
            images[image_id] = _read(run, image_id)
        image, address = images[image_id], ""
        if not isinstance(image, str):
            address = picture_address(draw_surroundings(image, detection, classes))
        found = f"{classes[detection.result['category_id']]} {detection.result['score']:.0%}"
        text = f"{found}: {detection.outcome.value}"
        if detection.outcome in (Outcome.WRONG_CLASS, Outcome.BOTH):
            text += f", it is {classes[detection.object['category_id']]}"
        panels.append(Panel(_file_name(run, image_id), text, address))
    return panels


def _read(run: EvaluatedRun, image_id: Any) -> np.ndarray | str:
    """RGB pixels (H, W, 3), or why there are none."""
    record = run.truth.coco.imgs[image_id]
    try:
        file = os.path.join(run.image_root, record["file_name"])
        image = read_picture(file, Intensity.from_config(run.config)).pixels
    except FileNotFoundError:
        return "the file is not there"
    except PictureError as error:
        return error.reason
    said = record.get("height", image.shape[0]), record.get("width", image.shape[1])
    if said != image.shape[:2]:
        return f"it has {image.shape[:2]} pixels, and its data says {said}"
    return image


def _file_name(run: EvaluatedRun, image_id: Any) -> str:
    return str(run.truth.coco.imgs[image_id]["file_name"])


def _class_names(run: EvaluatedRun) -> dict[Any, str]:
    return {i: category["name"] for i, category in run.truth.coco.cats.items()}


def _objects_text(objects: Sequence[dict[str, Any]], names: dict[Any, str]) -> str:
    counts = Counter(names[annotation["category_id"]] for annotation in objects)
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "no object"


def _outcomes_text(outcomes: ImageOutcomes) -> str:
    counts = Counter(detection.outcome for detection in outcomes.detections)
    missed = sum(outcome is Outcome.MISSED for _, outcome in outcomes.objects)
    counts[Outcome.MISSED] += missed
    return ", ".join(f"{counts[o]} {o.value}" for o in Outcome if counts[o]) or "no detection"

"""The images of a report: those with the worst results, and the most confident false positives."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..analysis.detection_run import DetectionRun
from ..analysis.mistakes import Analysis, Outcome
from ..data.image_reader import ImageError, read_image
from ..data.intensity import Intensity
from ..draw.outcomes import draw_objects, draw_outcomes, draw_surroundings
from ..progress import progress_bar
from .embed import image_address


@dataclass(frozen=True)
class Panel:
    """A drawing to embed.

    Attributes:
        title: what it shows: the image's file, a run, the ground truth.
        text: its content in words.
        address: the drawing as a ``data:`` address; empty where the image is unreadable.
        run: position of the run, if it is of one.
    """

    title: str
    text: str
    address: str
    run: int | None = None


@dataclass
class Scene:
    """An image: its ground truth, then the outcomes of each run; or why it is not shown."""

    name: str
    panels: list[Panel] = field(default_factory=list)
    notice: str = ""


def worst_scenes(
    runs: Sequence[DetectionRun], analyses: Sequence[Analysis], names: Sequence[str], count: int
) -> list[Scene]:
    """The images with the most mistakes of all runs together, the worst first.

    Args:
        analyses, names: of the runs; analyses of boxes.
        count: how many at most; an image without a mistake is left out.
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
        counts = Counter(classes[annotation["category_id"]] for annotation in objects)
        text = ", ".join(f"{number} {name}" for name, number in counts.items()) or "no object"
        drawn = draw_objects(image, objects, classes, masks="segm" in first.tasks)
        scene.panels.append(Panel("Ground truth", text, image_address(drawn)))
        for i, (run, analysis, name) in enumerate(zip(runs, analyses, names, strict=True)):
            outcomes = analysis.images[image_id]
            counts = Counter(detection.outcome for detection in outcomes.detections)
            missed = [o for _, o in outcomes.objects if o is Outcome.MISSED]
            counts[Outcome.MISSED] += len(missed)
            text = ", ".join(f"{counts[o]} {o.value}" for o in Outcome if counts[o])
            drawn = draw_outcomes(image, outcomes, classes, masks="segm" in run.tasks)
            scene.panels.append(Panel(name, text or "no detection", image_address(drawn), i))
    return scenes


def mistake_panels(run: DetectionRun, analysis: Analysis, count: int) -> list[Panel]:
    """The false positives with the highest scores, ``count`` at most, with their surroundings."""
    panels, classes = [], _class_names(run)
    images: dict[Any, np.ndarray | str] = {}
    for detection in progress_bar(analysis.false_positives()[:count], desc="drawing"):
        image_id = detection.result["image_id"]
        if image_id not in images:
            images[image_id] = _read(run, image_id)
        image, address = images[image_id], ""
        if not isinstance(image, str):
            address = image_address(draw_surroundings(image, detection, classes))
        found = f"{classes[detection.result['category_id']]} {detection.result['score']:.0%}"
        text = f"{found}: {detection.outcome.value}"
        if detection.outcome in (Outcome.WRONG_CLASS, Outcome.BOTH):
            text += f", it is {classes[detection.object['category_id']]}"
        panels.append(Panel(_file_name(run, image_id), text, address))
    return panels


def _read(run: DetectionRun, image_id: Any) -> np.ndarray | str:
    """RGB pixels (H, W, 3), or why there are none."""
    record = run.truth.coco.imgs[image_id]
    try:
        file = os.path.join(run.image_root, record["file_name"])
        image = read_image(file, Intensity.from_config(run.config)).pixels
    except FileNotFoundError:
        return "the file is missing"
    except ImageError as error:
        return error.reason
    stated = record.get("height", image.shape[0]), record.get("width", image.shape[1])
    if stated != image.shape[:2]:
        return f"it has {image.shape[:2]} pixels, and its data says {stated}"
    return image


def _file_name(run: DetectionRun, image_id: Any) -> str:
    return str(run.truth.coco.imgs[image_id]["file_name"])


def _class_names(run: DetectionRun) -> dict[Any, str]:
    return {i: category["name"] for i, category in run.truth.coco.cats.items()}

"""Outcomes of detections and objects, drawn on their image.

Each outcome has a colour (all but one of Okabe and Ito's), a line style and a sign, so it can be
recognised without colours. Missed objects are drawn among the detections.

Images are RGB, uint8, (H, W, 3); ``names`` are class names by category id.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..analysis.mistakes import Detection, ImageOutcomes, Outcome
from .charts import short_name
from .instances import Mark, draw_marks


class Style(NamedTuple):
    """Colour and line for matplotlib, sign before the class name, meaning for the legend."""

    color: str
    line: str
    sign: str
    meaning: str


STYLES = {
    Outcome.CORRECT: Style("#009e73", "-", "✓", "covers an object of its class"),
    Outcome.WRONG_CLASS: Style("#cc79a7", "--", "≠", "covers an object of another class"),
    Outcome.LOCALISATION: Style("#e69f00", ":", "↔", "overlaps an object of its class too little"),
    Outcome.BOTH: Style("#b8a1ff", "-.", "≠↔", "overlaps an object of another class too little"),
    Outcome.DUPLICATE: Style("#f0e442", ":", "×2", "covers an object that was found already"),
    Outcome.BACKGROUND: Style("#d55e00", "-", "∅", "there is no object"),
    Outcome.MISSED: Style("#56b4e9", "--", "?", "an object that no detection belongs to"),
    Outcome.IGNORED: Style("#bbbbbb", "-", "–", "on a crowd: it does not count"),
}
_OBJECT = "#ffffff"  # outlines of the ground truth
_PANEL = 480  # pixels, the longer side
_LARGEST_SCALE = 3.0
_PART = 240  # pixels, the longer side of a detection's surroundings
_AROUND = 0.6  # of a box's size, shown on each side of it
_LEAST_AROUND = 12  # pixels of the image


def draw_objects(
    image: np.ndarray, objects: Sequence[dict[str, Any]], names: dict[Any, str], *, masks: bool
) -> np.ndarray:
    """Draw annotations in COCO's format, with or without their masks.

    The longer side of the drawing has 480 pixels; a small image is enlarged three times at most.
    """
    return draw_marks(image, [_object(o, names, masks) for o in objects], scale=_scale(image))


def draw_outcomes(
    image: np.ndarray, outcomes: ImageOutcomes, names: dict[Any, str], *, masks: bool
) -> np.ndarray:
    """Draw the detections and the missed objects of an image, as large as :func:`draw_objects`."""
    marks = [_detection(detection, names, masks) for detection in outcomes.detections]
    style = STYLES[Outcome.MISSED]
    for annotation, outcome in outcomes.objects:
        if outcome is Outcome.MISSED:
            label = f"{style.sign} {short_name(names[annotation['category_id']])}"
            marks.append(Mark(_corners(annotation["bbox"]), label, style.color, style.line))
    return draw_marks(image, marks, scale=_scale(image))


def draw_surroundings(image: np.ndarray, detection: Detection, names: dict[Any, str]) -> np.ndarray:
    """Draw a detection and its object without text, in the part of the image around them.

    The longer side of the drawing has 240 pixels.
    """
    marks = [_detection(detection, names, False)]
    if detection.object is not None:
        marks.insert(0, _object(detection.object, names, False))
    boxes = np.array([mark.box for mark in marks])
    lowest, highest = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)  # (x, y) each
    around = max(_AROUND * (highest - lowest).max(), _LEAST_AROUND)
    size = image.shape[1::-1]
    left, top = np.clip(lowest - around, 0, np.subtract(size, 1)).astype(int)
    right, bottom = np.clip(highest + around, (left + 1, top + 1), size).astype(int)
    scale = _PART / max(right - left, bottom - top)
    part = Image.fromarray(image[top:bottom, left:right])
    # Enlarged before drawing, so all lines have the same width.
    part = part.resize(
        [max(1, round(side * scale)) for side in part.size], Image.Resampling.BICUBIC
    )
    boxes = scale * (boxes - [left, top, left, top])
    moved = [Mark(box, "", m.color, m.line) for box, m in zip(boxes, marks, strict=True)]
    return draw_marks(np.asarray(part), moved)


def _detection(detection: Detection, names: dict[Any, str], masks: bool) -> Mark:
    style, result = STYLES[detection.outcome], detection.result
    label = f"{style.sign} {short_name(names[result['category_id']])} {result['score']:.0%}"
    mask = result.get("segmentation") if masks else None
    return Mark(_corners(result["bbox"]), label, style.color, style.line, mask)


def _object(annotation: dict[str, Any], names: dict[Any, str], masks: bool) -> Mark:
    label = short_name(names[annotation["category_id"]])
    label += " (crowd)" if annotation.get("iscrowd") else ""
    mask = (annotation.get("segmentation") or None) if masks else None
    return Mark(_corners(annotation["bbox"]), label, _OBJECT, "-", mask)


def _corners(box: Sequence[float]) -> tuple[float, ...]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _scale(image: np.ndarray) -> float:
    return min(_PANEL / max(image.shape[:2]), _LARGEST_SCALE)

"""Instances drawn on their image, and predictions beside the ground truth.

Images are RGB, uint8, (H, W, 3). ``scale`` is the size of the drawing relative to the image;
``class_names`` are by class index. Annotations are in Detectron2's data set format.
"""

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from PIL import Image, ImageDraw, ImageFont

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, Instances, ROIMasks
from detectron2.utils.visualizer import GenericMask, Visualizer

from ..data import register_coco
from ..data.image_reader import read_image
from ..data.intensity import BY_TYPE
from ..modeling.box_masks import mask_parts
from .charts import COLORS, short_name
from .fonts import any_script

_TITLE_HEIGHT = 32  # pixels
_MARK_FONT = 7  # points
_MOST = 2000  # objects of an image, and parts of a mask; of keypoints ten times as many

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mark:
    """A box to draw, with its label.

    Attributes:
        box: left, top, right, bottom, pixels of the image.
        label: shown as it is, see :func:`.short_name`.
        color, line: as matplotlib names them.
        mask: RLE, polygons or an array, in the image's pixels; or None.
    """

    box: Sequence[float]
    label: str
    color: str
    line: str = "-"
    mask: Any = None


def draw_instances(
    image: np.ndarray, instances: Instances, class_names: Sequence[str], *, scale: float = 1.0
) -> np.ndarray:
    """Draw predicted boxes, masks, class names and scores.

    Args:
        instances: as a detector returns them, in the image's pixels. ``pred_masks`` may be
            ``ROIMasks`` of ``pred_boxes``.
    """
    classes = instances.pred_classes.tolist()
    masks = instances.pred_masks if instances.has("pred_masks") else ()
    in_boxes = isinstance(masks, ROIMasks)
    return _overlay(
        image,
        scale,
        boxes=instances.pred_boxes.tensor.numpy(),
        masks=mask_parts(instances) if in_boxes else ((mask.numpy(), 0, 0) for mask in masks),
        colors=[COLORS[label % len(COLORS)] for label in classes],
        labels=[
            f"{short_name(class_names[label])} {score:.0%}"
            for label, score in zip(classes, instances.scores.tolist(), strict=True)
        ],
    )


def draw_annotations(
    image: np.ndarray,
    annotations: Sequence[dict],
    class_names: Sequence[str],
    *,
    scale: float = 1.0,
) -> np.ndarray:
    """Draw the boxes, masks, keypoints and class names of ground truth."""
    classes = [annotation["category_id"] for annotation in annotations]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return _overlay(
        image,
        scale,
        boxes=np.array(boxes).reshape(-1, 4),
        masks=[annotation.get("segmentation") for annotation in annotations],
        colors=[COLORS[label % len(COLORS)] for label in classes],
        labels=[short_name(class_names[label]) for label in classes],
        keypoints=[annotation.get("keypoints") for annotation in annotations],
    )


def draw_marks(image: np.ndarray, marks: Sequence[Mark], *, scale: float = 1.0) -> np.ndarray:
    """Draw boxes and masks in their colours and lines; marks of one colour have the same line."""
    return _overlay(
        image,
        scale,
        boxes=np.array([mark.box for mark in marks], dtype=np.float64).reshape(-1, 4),
        masks=[mark.mask for mark in marks],
        colors=[mark.color for mark in marks],
        labels=[mark.label for mark in marks],
        lines={mark.color: mark.line for mark in marks},
        opacity=0.25,
    )


def draw_comparison(
    image: np.ndarray,
    annotations: Sequence[dict],
    instances: Instances,
    class_names: Sequence[str],
    *,
    min_size: int = 480,
) -> np.ndarray:
    """Ground truth on the left, prediction on the right.

    A smaller image is enlarged to a height or width of ``min_size`` pixels.
    """
    scale = max(1.0, min_size / min(image.shape[:2]))
    truth = draw_annotations(image, annotations, class_names, scale=scale)
    prediction = draw_instances(image, instances, class_names, scale=scale)
    gap = np.full((truth.shape[0], 8, 3), 255, dtype=np.uint8)
    panels = np.hstack([truth, gap, prediction])

    whole = Image.new("RGB", (panels.shape[1], panels.shape[0] + _TITLE_HEIGHT), "white")
    whole.paste(Image.fromarray(panels), (0, _TITLE_HEIGHT))
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(size=20)
    pen.text((8, 4), f"ground truth: {len(annotations)}", fill="black", font=font)
    right = truth.shape[1] + gap.shape[1] + 8
    pen.text((right, 4), f"prediction: {len(instances)}", fill="black", font=font)
    return np.asarray(whole)


def save_comparisons(
    predict: Callable[[np.ndarray], Instances],
    data: tuple[str, str],
    folder: str | os.PathLike,
    *,
    count: int = 12,
) -> list[Path]:
    """Write :func:`draw_comparison` of the first images of a data set as PNG files.

    Args:
        predict: from an RGB image to instances. A ``Predictor`` also knows how images of more than
            8 bits are read, otherwise their type does.
        data: (COCO json file, image folder).
        folder: for the files, which are named like the images.
    """
    name = register_coco(*data)
    class_names = MetadataCatalog.get(name).thing_classes
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    intensity = getattr(predict, "intensity", BY_TYPE)
    files = []
    for record in DatasetCatalog.get(name)[:count]:
        image = read_image(record["file_name"], intensity).pixels
        drawn = draw_comparison(image, record["annotations"], predict(image), class_names)
        files.append(folder / f"{Path(record['file_name']).stem}.png")
        Image.fromarray(drawn).save(files[-1])
    return files


class _Canvas(Visualizer):
    """Draws boxes with a dark edge, in the line style that ``lines`` has for their colour."""

    lines: dict[str, str] = {}

    def draw_box(self, box_coord, alpha=0.5, edge_color="g", line_style="-"):
        if edge_color not in self.lines:
            return super().draw_box(box_coord, alpha, edge_color, line_style)
        super().draw_box(box_coord, 1, edge_color, self.lines[edge_color])
        line = self.output.ax.patches[-1]
        line.set_path_effects([withStroke(linewidth=1.7 * line.get_linewidth(), foreground="#222")])
        return self.output

    def draw_text(self, text, position, *, font_size=None, **kwargs):
        if self.lines:  # many on one image: all small
            font_size = _MARK_FONT / self.output.scale
        return super().draw_text(text, position, font_size=font_size, **kwargs)


def _draw_mask(canvas, image, part, top, left, *, color, opacity) -> None:
    """Draw a mask that lies in one part of the image.

    A mask with holes or of many parts is blended into ``image``, in place: Detectron2's
    ``overlay_instances`` fills holes, and its ``draw_binary_mask`` needs four floats per pixel of
    the image and such mask.
    """
    polygons, has_holes = GenericMask([], *part.shape).mask_to_polygons(part)
    if not has_holes and len(polygons) < _MOST:
        for polygon in polygons:
            canvas.draw_polygon(polygon.reshape(-1, 2) + (left, top), color=color, alpha=opacity)
        return
    pixels = image[top : top + part.shape[0], left : left + part.shape[1]]
    inside = part.astype(bool)
    blended = pixels[inside] * (1 - opacity) + 255 * opacity * np.array(to_rgb(color))
    pixels[inside] = np.rint(blended).astype(np.uint8)


def _overlay(
    image, scale, *, boxes, masks, colors, labels, keypoints=(), lines=None, opacity=0.5
) -> np.ndarray:
    canvas = _Canvas(image, scale=scale)
    canvas.lines = lines or {}
    image = image.copy()
    if len(boxes) > _MOST:
        logger.warning(f"an image has {len(boxes)} objects: the first {_MOST} are drawn")
        boxes, colors, labels = boxes[:_MOST], colors[:_MOST], labels[:_MOST]
    if len(boxes):
        labels = labels if any(labels) else None
        canvas.overlay_instances(boxes=boxes, labels=labels, assigned_colors=colors)
        for mask, color in zip(masks, colors, strict=False):
            if mask is None:
                continue
            if not isinstance(mask, tuple):
                mask = (GenericMask(mask, *image.shape[:2]).mask, 0, 0)
            _draw_mask(canvas, image, *mask, color=color, opacity=opacity)
        points = (
            (Circle((x, y), 3), color)
            for values, color in zip(keypoints, colors, strict=False)
            for x, y, visibility in zip(*[iter(values or ())] * 3, strict=True)
            if visibility > 0
        )
        if first := list(itertools.islice(points, 10 * _MOST)):
            circles, shades = zip(*first, strict=True)
            canvas.output.ax.add_collection(PatchCollection(circles, color=shades), autolim=False)
    # The image is added here, not by matplotlib, of which version 3.10 moves it by up to a pixel.
    canvas.output.ax.images[0].set_visible(False)
    with any_script(canvas.output.fig):
        canvas.output.canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.output.canvas.buffer_rgba()))
    resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    whole = Image.fromarray(image).resize(drawn.size, resampling)
    whole.paste(drawn, mask=drawn)
    return np.array(whole)  # (scale*H, scale*W, 3)

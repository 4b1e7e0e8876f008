"""Instances drawn on their image, and predictions beside the ground truth."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke
from PIL import Image, ImageDraw, ImageFont

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, Instances, ROIMasks
from detectron2.utils.visualizer import GenericMask, Visualizer

from ..data import register_coco
from ..data.image_reader import read_picture
from ..data.intensity import BY_TYPE
from ..modeling.box_masks import mask_parts
from .fonts import any_script
from .labels import short_name

__all__ = [
    "Mark",
    "draw_annotations",
    "draw_comparison",
    "draw_instances",
    "draw_marks",
    "save_comparisons",
]

# Okabe and Ito's palette, which stays apart for colour-blind people too; by class number.
_COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
_TITLE_HEIGHT = 32  # pixels
_MARK_FONT = 7  # points


@dataclass(frozen=True)
class Mark:
    """A box to draw, and what it says.

    Attributes:
        box: left, top, right, bottom, pixels of the image.
        label: empty for none of all marks; of names see :func:`.short_name`.
        color, line: as matplotlib names them.
        mask: RLE, polygons or an array, in the image's pixels; None for none.
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
        image: RGB, uint8, (H, W, 3).
        instances: as a detector returns them, in the image's pixels. ``pred_masks`` may be
            ``ROIMasks`` of ``pred_boxes``.
        class_names: by class number.
        scale: size of the picture relative to the image.

    Returns:
        RGB, uint8, (scale*H, scale*W, 3)
    """
    classes = instances.pred_classes.tolist()
    masks = instances.pred_masks if instances.has("pred_masks") else ()
    in_boxes = isinstance(masks, ROIMasks)
    return _overlay(
        image,
        scale,
        boxes=instances.pred_boxes.tensor.numpy(),
        masks=mask_parts(instances) if in_boxes else ((mask.numpy(), 0, 0) for mask in masks),
        colors=_class_colors(classes),
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
    """Draw the boxes, masks, keypoints and class names of ground truth.

    Args:
        image: RGB, uint8, (H, W, 3).
        annotations: in Detectron2's data set format, class numbers contiguous.
        class_names: by class number.
        scale: size of the picture relative to the image.

    Returns:
        RGB, uint8, (scale*H, scale*W, 3)
    """
    classes = [annotation["category_id"] for annotation in annotations]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return _overlay(
        image,
        scale,
        boxes=np.array(boxes).reshape(-1, 4),
        masks=[annotation.get("segmentation") for annotation in annotations],
        colors=_class_colors(classes),
        labels=[short_name(class_names[label]) for label in classes],
        keypoints=[annotation.get("keypoints") for annotation in annotations],
    )


def draw_marks(image: np.ndarray, marks: Sequence[Mark], *, scale: float = 1.0) -> np.ndarray:
    """Draw boxes and masks, each in its own colour and line.

    Args:
        image: RGB, uint8, (H, W, 3).
        marks: of one colour all have one line.
        scale: size of the picture relative to the image.

    Returns:
        RGB, uint8, (scale*H, scale*W, 3)
    """
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

    Args:
        image: RGB, uint8, (H, W, 3).
        annotations: in Detectron2's data set format, class numbers contiguous.
        instances: as a detector returns them.
        class_names: by class number.
        min_size: smaller images are enlarged to this height or width, in pixels.

    Returns:
        RGB, uint8
    """
    scale = max(1.0, min_size / min(image.shape[:2]))
    truth = draw_annotations(image, annotations, class_names, scale=scale)
    prediction = draw_instances(image, instances, class_names, scale=scale)
    gap = np.full((truth.shape[0], 8, 3), 255, dtype=np.uint8)
    panels = np.hstack([truth, gap, prediction])

    picture = Image.new("RGB", (panels.shape[1], panels.shape[0] + _TITLE_HEIGHT), "white")
    picture.paste(Image.fromarray(panels), (0, _TITLE_HEIGHT))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=20)
    draw.text((8, 4), f"ground truth: {len(annotations)}", fill="black", font=font)
    right = truth.shape[1] + gap.shape[1] + 8
    draw.text((right, 4), f"prediction: {len(instances)}", fill="black", font=font)
    return np.asarray(picture)


def save_comparisons(
    predict: Callable[[np.ndarray], Instances],
    data: tuple[str, str],
    folder: str | os.PathLike,
    *,
    count: int = 12,
) -> list[Path]:
    """Write :func:`draw_comparison` of the first images of a data set as PNG files.

    Args:
        predict: from an RGB image to instances. A ``Predictor`` says how images of more than 8 bits
            are read; otherwise that is by type.
        data: (COCO json file, image folder).
        folder: where the pictures go, named like the images.
        count: how many.
    """
    name = register_coco(*data)
    class_names = MetadataCatalog.get(name).thing_classes
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    intensity = getattr(predict, "intensity", BY_TYPE)
    pictures = []
    for record in DatasetCatalog.get(name)[:count]:
        image = read_picture(record["file_name"], intensity).pixels
        picture = draw_comparison(image, record["annotations"], predict(image), class_names)
        pictures.append(folder / f"{Path(record['file_name']).stem}.png")
        Image.fromarray(picture).save(pictures[-1])
    return pictures


class _Canvas(Visualizer):
    """Draws lines with a dark edge, in the style of their colour, where ``lines`` has it."""

    lines: dict[str, str] = {}

    def draw_box(self, box_coord, alpha=0.5, edge_color="g", line_style="-"):
        if edge_color not in self.lines:
            return super().draw_box(box_coord, alpha, edge_color, line_style)
        super().draw_box(box_coord, 1, edge_color, self.lines[edge_color])
        line = self.output.ax.patches[-1]
        line.set_path_effects([withStroke(linewidth=1.7 * line.get_linewidth(), foreground="#222")])
        return self.output

    def draw_text(self, text, position, *, font_size=None, **kwargs):
        if self.lines:  # many on one picture: all small
            font_size = _MARK_FONT / self.output.scale
        return super().draw_text(text, position, font_size=font_size, **kwargs)


def _class_colors(classes: Sequence[int]) -> list[str]:
    return [_COLORS[label % len(_COLORS)] for label in classes]


def _draw_mask(canvas, image, part, top, left, *, color, opacity) -> None:
    """Draw a mask that has pixels in one part of the image alone.

    One with holes is laid over ``image``, in place: Detectron2's ``overlay_instances`` fills holes,
    and its ``draw_binary_mask`` keeps four floats for each pixel of the image and each such mask.
    """
    polygons, has_holes = GenericMask([], *part.shape).mask_to_polygons(part)
    if not has_holes:
        for polygon in polygons:
            canvas.draw_polygon(polygon.reshape(-1, 2) + (left, top), color=color, alpha=opacity)
        return
    pixels = image[top : top + part.shape[0], left : left + part.shape[1]]
    inside = part.astype(bool)
    laid = pixels[inside] * (1 - opacity) + 255 * opacity * np.array(to_rgb(color))
    pixels[inside] = np.rint(laid).astype(np.uint8)


def _overlay(
    image, scale, *, boxes, masks, colors, labels, keypoints=(), lines=None, opacity=0.5
) -> np.ndarray:
    canvas = _Canvas(image, scale=scale)
    canvas.lines = lines or {}
    image = image.copy()
    if len(boxes):
        labels = labels if any(labels) else None
        canvas.overlay_instances(boxes=boxes, labels=labels, assigned_colors=colors)
        for mask, color in zip(masks, colors, strict=False):
            if mask is None:
                continue
            if not isinstance(mask, tuple):
                mask = (GenericMask(mask, *image.shape[:2]).mask, 0, 0)
            _draw_mask(canvas, image, *mask, color=color, opacity=opacity)
        for values, color in zip(keypoints, colors, strict=False):
            for x, y, visibility in zip(*[iter(values or ())] * 3, strict=True):
                if visibility > 0:
                    canvas.draw_circle((x, y), color, radius=3)
    # The image itself is laid under the drawing here: matplotlib 3.10 moves it by up to a pixel.
    canvas.output.ax.images[0].set_visible(False)
    with any_script(canvas.output.fig):
        canvas.output.canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.output.canvas.buffer_rgba()))
    resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    picture = Image.fromarray(image).resize(drawn.size, resampling)
    picture.paste(drawn, mask=drawn)
    return np.array(picture)  # (scale*H, scale*W, 3)

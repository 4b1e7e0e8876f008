"""Label maps of semantic segmentation as images."""

import colorsys
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from .charts import short_name
from .fonts import any_script

_OPACITY = 0.55
_DPI = 100
_LISTED = 24  # classes in a legend


def class_colors(number: int) -> np.ndarray:
    """A colour for each class: uint8 (number, 3), the first ones far apart."""
    golden = 0.618034  # neighbouring numbers get distant hues
    colors = [
        colorsys.hsv_to_rgb(i * golden % 1, (0.75, 0.45, 0.9)[i % 3], (0.9, 0.75, 0.6)[i // 3 % 3])
        for i in range(number)
    ]
    return np.rint(255 * np.array(colors).reshape(-1, 3)).astype(np.uint8)


def palette_image(labels: np.ndarray, number: int) -> Image.Image:
    """A label map (H, W) of so many classes as an image whose palette has their colours.

    Its values are the class numbers; there are at most 256 classes.
    """
    image = Image.fromarray(labels.astype(np.uint8), mode="P")
    image.putpalette(class_colors(number).tobytes())
    return image


def blend_labels(
    image: np.ndarray, labels: np.ndarray, number: int, *, max_side: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """An image with its classes as colours; pixels of no class are darkened.

    Args:
        image: RGB, uint8, (H, W, 3).
        labels: class numbers (H, W), or other values for no class.
        number: of classes.
        max_side: a larger image is reduced to this long side, pixels.

    Returns:
        The drawing, RGB, uint8, (h, w, 3), and the labels (h, w), -1 for no class.
    """
    known = (labels >= 0) & (labels < number)
    labels = np.where(known, labels.astype(np.int32), -1)
    scale = min(1.0, (max_side or np.inf) / max(labels.shape))
    if scale < 1:
        height, width = (max(1, round(scale * side)) for side in labels.shape)
        size, nearest = (width, height), Image.Resampling.NEAREST
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        labels = np.asarray(Image.fromarray(labels).resize(size, nearest))
    colors = np.concatenate((class_colors(number), [[0, 0, 0]]))  # black for -1
    blended = (1 - _OPACITY) * image + _OPACITY * colors[labels]
    return np.rint(blended).astype(np.uint8), labels


def draw_labels(
    image: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    max_side: int | None = None,
) -> np.ndarray:
    """:func:`blend_labels` with a legend below it: RGB, uint8, (h, w, 3)."""
    drawn, labels = blend_labels(image, labels, len(class_names), max_side=max_side)
    numbers, counts = np.unique(labels[labels >= 0], return_counts=True)
    present = numbers[np.argsort(-counts)][:_LISTED].tolist()
    return np.concatenate((drawn, class_legend(present, class_names, drawn.shape[1])))


def class_legend(numbers: Sequence[int], class_names: Sequence[str], width: int) -> np.ndarray:
    """A strip of that width, pixels, with the names of some classes in their colours."""
    colors = class_colors(len(class_names))
    columns = max(1, width // 120)
    height = 22 * -(-len(numbers) // columns) + 8
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    handles = [
        Patch(color=colors[number] / 255, label=short_name(class_names[number]))
        for number in numbers
    ]
    figure.legend(handles=handles, loc="center", ncols=columns, fontsize=8, frameon=False)
    with any_script(figure):
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:height, :width, :3]

"""Label maps of semantic segmentation as images."""

import colorsys
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from .charts import literal, short_name
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


def draw_labels(image: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """An image with its classes as colours, and a legend below it.

    Args:
        image: RGB, uint8, (H, W, 3).
        labels: class numbers (H, W).

    Returns:
        RGB, uint8, (H', W, 3).
    """
    colors = class_colors(len(class_names))
    blended = (1 - _OPACITY) * image + _OPACITY * colors[labels]
    drawn = np.rint(blended).astype(np.uint8)
    numbers, counts = np.unique(labels, return_counts=True)
    present = numbers[np.argsort(-counts)][:_LISTED].tolist()
    names = [literal(short_name(class_names[number])) for number in present]
    return np.concatenate((drawn, _legend(names, colors[present], drawn.shape[1])))


def _legend(names: list[str], colors: np.ndarray, width: int) -> np.ndarray:
    """A strip of that width, pixels, with the names in their colours."""
    columns = max(1, width // 120)
    height = 22 * -(-len(names) // columns) + 8
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    handles = [
        Patch(color=color / 255, label=name) for name, color in zip(names, colors, strict=True)
    ]
    figure.legend(handles=handles, loc="center", ncols=columns, fontsize=8, frameon=False)
    with any_script(figure):
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:height, :width, :3]

"""Images and charts as ``data:`` addresses, which an HTML file can contain."""

import base64
import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..draw.fonts import any_script


def image_address(image: np.ndarray) -> str:
    """An image, RGB, uint8, (H, W, 3), as JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=82, optimize=True)
    return _address("image/jpeg", file)


def chart_address(figure: Figure) -> str:
    """A chart as SVG, with letters as outlines, which look the same everywhere."""
    file = io.BytesIO()
    settings = {"svg.fonttype": "path", "svg.hashsalt": "resnest-d2"}
    with matplotlib.rc_context(settings), any_script(figure):
        # Tight, because the layout ignores long slanted names.
        figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return _address("image/svg+xml", file)


def _address(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"

"""Pictures and charts as ``data:`` addresses: an HTML file that has them needs no other file."""

import base64
import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..draw.fonts import any_script

__all__ = ["chart_address", "picture_address"]

_QUALITY = 82  # of JPEG


def picture_address(picture: np.ndarray) -> str:
    """A photo as JPEG.

    Args:
        picture: RGB, uint8, (H, W, 3).
    """
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY, optimize=True)
    return _address("image/jpeg", file)


def chart_address(figure: Figure) -> str:
    """A chart as SVG. Its letters are outlines: it looks the same everywhere."""
    file = io.BytesIO()
    settings = {"svg.fonttype": "path", "svg.hashsalt": "resnest-d2"}
    with matplotlib.rc_context(settings), any_script(figure):
        # Tight: the layout leaves long names out of account that stand aslant.
        figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return _address("image/svg+xml", file)


def _address(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"

"""What all charts share."""

import os
import textwrap
from typing import TYPE_CHECKING

from ..files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save_chart"]


def save_chart(figure: "Figure", path: str | os.PathLike, *, title: str, note: str) -> None:
    """Write a chart as PNG, with what was measured above it and on what, in small print, below."""
    from .fonts import any_script  # matplotlib's import takes its time

    figure.suptitle(title)
    characters = int(15 * figure.get_figwidth())  # that fit on a line
    figure.supxlabel(textwrap.fill(note, characters), fontsize=7, color="#555555")
    with writing(path) as file, any_script(figure):
        figure.savefig(file, format="png", dpi=120)

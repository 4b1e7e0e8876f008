"""What all charts share: colours, names as text, saving."""

import os
import textwrap
from typing import TYPE_CHECKING

from ..files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Okabe and Ito's palette, for colour-blind readers too; by class number."""

RUN_COLORS = (*(COLORS[i] for i in (4, 5, 2, 6, 1, 0)), "#000000", "#7f7f7f")
"""Of runs side by side, the darkest first; with :data:`MARKERS` for print."""

MARKERS = "osD^v<>P"


def literal(text: str) -> str:
    """A name of a class, file or run for matplotlib: on one line, and not read as a formula."""
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be drawn
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text.replace("$", r"\$")


def short_name(text: str, max_length: int = 40) -> str:
    """:func:`literal`, cut to a number of characters."""
    return literal(text if len(text) <= max_length else f"{text[: max_length - 1]}…")


def save_chart(figure: "Figure", path: str | os.PathLike, *, title: str, note: str) -> None:
    """Write a chart as PNG, with a title above and a note in small print below."""
    from .fonts import any_script  # imports matplotlib, which takes time

    figure.suptitle(title)
    characters = int(15 * figure.get_figwidth())  # that fit on a line
    figure.supxlabel(textwrap.fill(note, characters), fontsize=7, color="#555555")
    with writing(path) as file, any_script(figure):
        figure.savefig(file, format="png", dpi=120)

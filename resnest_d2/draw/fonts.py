"""Installed fonts for letters that matplotlib's own font lacks.

Names of classes, files and runs may be in any script. Matplotlib's font has Latin, Greek, Cyrillic
and a few more. For other letters the installed fonts are searched, and those found are added to
the font families of a text, from which matplotlib chooses letter by letter. A letter in no font is
drawn as a box, with one warning.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import ImageFont

logger = logging.getLogger(__name__)

_NAMED = 20  # letters in a warning


class _Font(NamedTuple):
    """An installed font, and which of the wanted letters it has; a higher rank is preferred."""

    file: str
    family: str
    letters: set[str]
    rank: tuple


class _Fallbacks:
    """The fonts found so far; each has letters that those before it lack."""

    def __init__(self):
        self.fonts: list[_Font] = []
        self._searched: set[str] = set()

    def search(self, letters: set[str]) -> None:
        """Find fonts for letters that were not searched yet; warn of letters without any."""
        missing = {
            a for a in letters - self._searched if not any(_has(f.file, a) for f in self.fonts)
        }
        self._searched |= letters
        installed = _installed(missing) if missing else []
        while missing and installed:
            best = max(installed, key=lambda font: (len(font.letters & missing), font.rank))
            if not best.letters & missing:
                break
            missing -= best.letters
            self.fonts.append(best)
            font_manager.fontManager.addfont(best.file)
        if missing:
            named = " ".join(sorted(missing)[:_NAMED])
            logger.warning(
                f"no installed font has the letters {named}: they are drawn as boxes. Install a "
                "font that has them, such as Noto Sans CJK for Chinese, Japanese and Korean "
                "(fonts-noto-cjk on Debian and Ubuntu)"
            )


_fallbacks = _Fallbacks()


@contextlib.contextmanager
def any_script(figure: Figure) -> Iterator[None]:
    """In this block the figure is drawn with fonts for all letters of the texts that it has."""
    for axes in figure.axes:
        axes.get_xticklabels()  # creates the tick labels
        axes.get_yticklabels()
    usual = font_manager.findfont(font_manager.FontProperties())
    lacking = {}
    for text in figure.findobj(Text):
        if letters := _lacking(usual, text.get_text()):
            lacking[text] = letters
    _fallbacks.search(set().union(*lacking.values()))
    families = [font.family for font in _fallbacks.fonts]
    for text in lacking:
        own = [family for family in text.get_fontfamily() if family not in families]
        text.set_fontfamily([*own, *families])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def image_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The font with the most letters of a text, in ``size`` pixels; Pillow takes one per text."""
    if text.isascii():
        return ImageFont.load_default(size=size)
    usual = font_manager.findfont(font_manager.FontProperties())
    _fallbacks.search(_lacking(usual, text))
    files = [usual, *(font.file for font in _fallbacks.fonts)]
    best = max(files, key=lambda file: sum(_has(file, letter) for letter in text))
    return ImageFont.truetype(best, size)


def _lacking(file: str, text: str) -> set[str]:
    return {letter for letter in text if letter.isprintable() and not _has(file, letter)}


def _has(file: str, letter: str) -> bool:
    return font_manager.get_font(file).get_char_index(ord(letter)) != 0


def _installed(letters: set[str]) -> list[_Font]:
    """The fonts with some of the letters that matplotlib can draw."""
    fonts = []
    for file in sorted(font_manager.findSystemFonts()):
        with contextlib.suppress(RuntimeError, OSError):  # damaged, or of another kind
            font = FT2Font(file)
            own = {letter for letter in letters if font.get_char_index(ord(letter))}
            # Neither fonts of bitmaps, such as coloured emoji, nor those whose letters are boxes.
            if own and font.scalable and "LastResort" not in font.family_name.replace(" ", ""):
                plain = font.style_name in ("Regular", "Book", "Roman", "Normal")
                rank = plain, "Sans" in font.family_name, -len(font.family_name)
                fonts.append(_Font(file, font.family_name, own, rank))
    return fonts

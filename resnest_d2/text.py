"""Texts to print: tables, and names from files made safe.

Names in files may have terminal escapes, line breaks, or characters that change the direction of
text, which could fake or hide lines or control the terminal.
"""

import logging
import re
from collections.abc import Iterable, Sequence

_NAMES: dict[str, str] = {}
_COLOUR = re.compile(r"(\x1b\[(?:[01459]|3\d)m)")  # Detectron2 colours its own messages


def printable(text: object, limit: int | None = None) -> str:
    r"""The text in one line, its unprintable characters as escapes such as ``\x1b``.

    Args:
        text: anything that has a ``str``.
        limit: characters; longer texts are cut.
    """
    text = str(text)
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def add_names(paths: Iterable[str]) -> None:
    """Names of files and folders with line breaks, which no message may print as such.

    A message in several lines does not show where a name with line breaks ends.
    """
    names = {name for path in paths for name in path.split("/") if name.strip()}
    _NAMES.update((name, printable(name)) for name in names if not name.isprintable())


def printable_lines(text: object) -> str:
    """:func:`printable` for each line of a text, and for the names of :func:`add_names`."""
    text = str(text)
    for name, shown in _NAMES.items():
        text = text.replace(name, shown)
    return "\n".join(map(printable, text.split("\n")))


def text_table(
    rows: Iterable[Sequence[str]], headers: Sequence[str], form: str = "github", left: int = 1
) -> str:
    """A table of final texts, in a format of ``tabulate``.

    Args:
        left: columns that are left-aligned; the others are right-aligned.
    """
    from tabulate import tabulate  # not needed to print a help text

    alignment = ["left"] * left + ["right"] * (len(headers) - left)
    return tabulate(rows, headers, tablefmt=form, colalign=alignment, disable_numparse=True)


def printable_record(record: logging.LogRecord) -> bool:
    """A filter for log handlers: :func:`printable_lines` for each message, keeping colours."""
    parts = _COLOUR.split(record.getMessage())  # colours have odd indices
    record.msg = "".join(part if i % 2 else printable_lines(part) for i, part in enumerate(parts))
    record.args = None
    return True

"""Texts from files, made safe to print.

A name in a file may hold terminal escapes, line breaks, or characters that turn the direction of
the text around: printed raw, they forge lines, hide them, or give orders to the terminal.
"""

import logging
import re

__all__ = ["printable", "printable_lines", "printable_record"]

_COLOUR = re.compile(r"(\x1b\[(?:[01459]|3\d)m)")  # Detectron2 colours its own messages


def printable(text: object, limit: int | None = None) -> str:
    r"""The text in one line, its unprintable characters as escapes such as ``\x1b``.

    Args:
        text: anything; its ``str`` is taken.
        limit: characters; a longer text is cut.
    """
    text = str(text)
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: object) -> str:
    """The same for a text of several lines: its line breaks are ours and stay."""
    return "\n".join(map(printable, str(text).split("\n")))


def printable_record(record: logging.LogRecord) -> bool:
    """A filter for log handlers: the same for each message, in which colours stay."""
    parts = _COLOUR.split(record.getMessage())  # colours are at the odd places
    record.msg = "".join(part if i % 2 else printable_lines(part) for i, part in enumerate(parts))
    record.args = None
    return True

"""Makes texts from files safe to print.

Names in files may have terminal escapes, line breaks, or characters that change the direction of
text, which could fake or hide lines or control the terminal.
"""

import logging
import re

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


def printable_lines(text: object) -> str:
    """:func:`printable` for each line of a text."""
    return "\n".join(map(printable, str(text).split("\n")))


def printable_record(record: logging.LogRecord) -> bool:
    """A filter for log handlers: :func:`printable_lines` for each message, keeping colours."""
    parts = _COLOUR.split(record.getMessage())  # colours have odd indices
    record.msg = "".join(part if i % 2 else printable_lines(part) for i, part in enumerate(parts))
    record.args = None
    return True

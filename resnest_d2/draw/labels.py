"""Names that others have chosen, of classes, files and runs, as text in a picture."""

__all__ = ["literal", "short_name"]


def literal(text: str) -> str:
    """The text for matplotlib, which then shows it as it is: on one line, and no formula.

    Matplotlib would set what is between dollars, and raise an error where it cannot.
    """
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be drawn
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text.replace("$", r"\$")


def short_name(text: str, max_length: int = 40) -> str:
    """The same, cut where it is longer than so many characters."""
    return literal(text if len(text) <= max_length else f"{text[: max_length - 1]}…")

"""Refusing an argument that cannot be, in words that help to mend it.

A network class knows its argument's name, a config builder knows the key that the value came
from. :class:`ArgumentError` carries both halves, so that the check stands in one place and the
message names what the user wrote.
"""

from collections.abc import Iterable
from typing import Any

__all__ = ["REFUSALS", "ArgumentError", "check_choice", "error_text"]

REFUSALS = (ValueError, KeyError, FileNotFoundError, FileExistsError)
"""What bad input raises, before any work is done."""


class ArgumentError(ValueError):
    """An argument whose value cannot be.

    Args:
        argument: the argument's name, e.g. ``"depth"``.
        problem: what is wrong and what is allowed, e.g. ``"must be one of (14, 26), got 42"``.
    """

    def __init__(self, argument: str, problem: str):
        super().__init__(f"{argument} {problem}")
        self.argument = argument
        self.problem = problem

    def __reduce__(self):
        return type(self), (self.argument, self.problem)


def check_choice(argument: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise :class:`ArgumentError` unless ``value`` is one of ``choices``."""
    choices = tuple(choices)
    if value not in choices:
        raise ArgumentError(argument, f"must be one of {choices}, got {value!r}")


def error_text(error: BaseException | str) -> str:
    """An error's message, or its type where it has none.

    The text of a KeyError is its argument's representation.
    """
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text or type(error).__name__

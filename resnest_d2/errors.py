"""Errors for invalid arguments and input.

:class:`ArgumentError` has the name of an argument and the problem separately, so that a config
builder can replace the name by the key that the user wrote.
"""

from collections.abc import Iterable
from typing import Any

REFUSALS = (ValueError, KeyError, FileNotFoundError, FileExistsError)
"""What invalid input raises, before any work is done."""


class ArgumentError(ValueError):
    """An invalid value of an argument.

    Args:
        argument: its name, e.g. ``"depth"``.
        problem: e.g. ``"must be one of (14, 26), got 42"``.
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
    """The message of an error, or its type where it has none."""
    # str() of a KeyError would be the repr of its argument.
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text or type(error).__name__

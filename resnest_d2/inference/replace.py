"""Modules of a model, exchanged for others that do the same."""

from collections.abc import Callable

from torch import nn

__all__ = ["replace_modules"]


def replace_modules(
    model: nn.Module, kind: type[nn.Module], fits: Callable[[nn.Module], bool]
) -> int:
    """Put ``kind(module)`` in the place of every module that ``fits``, in place.

    What is of that kind already is not looked into.

    Returns:
        How many were replaced.
    """
    replaced = 0
    for module in list(model.modules()):
        if isinstance(module, kind):
            continue
        for name, child in list(module.named_children()):
            if fits(child):
                setattr(module, name, kind(child))
                replaced += 1
    return replaced

"""Replaces modules of a model by equivalent ones."""

from collections.abc import Callable

from torch import nn


def replace_modules(
    model: nn.Module, kind: type[nn.Module], fits: Callable[[nn.Module], bool]
) -> int:
    """Replace every module that ``fits`` by ``kind(module)`` in place; returns their number."""
    replaced = 0
    for module in list(model.modules()):
        if isinstance(module, kind):  # keep the module inside it
            continue
        for name, child in list(module.named_children()):
            if fits(child):
                setattr(module, name, kind(child))
                replaced += 1
    return replaced

"""Freezing parameters by the patterns of ``RESNEST.FREEZE``."""

import difflib
import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

logger = logging.getLogger(__name__)

_KEY = "RESNEST.FREEZE"


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze matching parameters, in place, and the statistics of batch norms.

    A batch norm stays in evaluation mode if its weight and bias both match. Call this before the
    optimiser and the distributed wrapper are built.

    Args:
        patterns: of parameter names, in which ``*`` stands for any text.

    Raises:
        ValueError: a pattern matches no parameter, or no parameter is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"{_KEY}: {pattern!r} matches no parameter of the model. {_near(pattern, names)}"
            )

    def matches(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    frozen = [parameter for name, parameter in model.named_parameters() if matches(name)]
    for parameter in frozen:
        parameter.requires_grad = False
    norms = [
        module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and matches(f"{name}.weight") and matches(f"{name}.bias")
    ]
    for norm in norms:
        norm.eval()
        norm.train = MethodType(_stay, norm)  # a bound method: copies of the model keep their own
    if patterns and not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{_KEY} {tuple(patterns)} leaves no parameter to train")
    if frozen:
        logger.info(
            f"{_KEY}: {len(frozen)} of {len(names)} parameters stay as they are loaded, and the "
            f"statistics of {len(norms)} batch norms"
        )


def _stay(norm: nn.Module, mode: bool = True) -> nn.Module:
    return norm  # in place of norm.train: it stays in evaluation mode


def _near(pattern: str, names: Sequence[str]) -> str:
    """A sentence with names like a pattern, or else with the model's parts."""
    modules = sorted(
        {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 1)}
    )
    found = difflib.get_close_matches(pattern.strip("*."), [*modules, *names], n=4, cutoff=0.6)
    if found:
        near = [f"{name}.*" if name in modules else name for name in found]
        return f"Near: {', '.join(near)}"
    return f"Its parts: {', '.join(f'{name}.*' for name in modules if '.' not in name)}"

"""Old import paths, which keep working with a DeprecationWarning.

A module of :data:`MODULES` is no file any more: importing it gives a module that looks its names up
in the new ones.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

MODULES: dict[str, tuple[str, ...]] = {
    "data.errors": ("data.batches.worker_errors",),
    "demo": ("cli.demo",),
    "evaluation.coco": ("evaluation.coco_evaluator",),
    "prediction": ("predict.many_files",),
    "predictor": ("predict.predictor",),
    "trained": ("model_zoo.trained",),
    "visualize": (
        "draw",
        "analysis",
        "analysis.comparing.comparison_text",
        "benchmark",
        "evaluation",
        "report",
    ),
}
"""Old module: new ones, in which its names are looked for in this order. All in this package."""

_PACKAGE = __name__.partition(".")[0]


def moved_names(old: str, new: Sequence[str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for names that are in other modules now.

    Args:
        old, new: modules of this package.
    """

    def find(name: str) -> Any:
        for module in new if not name.startswith("__") else ():
            value = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name, None)
            if value is not None:
                warnings.warn(
                    f"{_PACKAGE}.{old}.{name} is now {_PACKAGE}.{module}.{name}",
                    DeprecationWarning,
                    stacklevel=2,
                )
                return value
        raise AttributeError(f"module {_PACKAGE}.{old} has no attribute {name!r}")

    return find


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path=None, target=None):
        package, _, old = fullname.partition(".")
        if package == _PACKAGE and old in MODULES:
            return importlib.machinery.ModuleSpec(fullname, self)
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        old = module.__name__.partition(".")[2]
        module.__getattr__ = moved_names(old, MODULES[old])


def install() -> None:
    """Let Python find the old modules, after all that exist."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())

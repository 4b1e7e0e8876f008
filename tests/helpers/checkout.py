"""The checkout that these tests stand in, if they do."""

import importlib.util
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

needs_checkout = pytest.mark.skipif(
    not (ROOT / "setup.py").is_file(), reason="tests/ was copied out of the checkout"
)
"""For tests of the checkout's own files. All others run against an installed wheel too."""


def load_tool(name: str) -> types.ModuleType:
    """``tools/NAME.py`` as a new module: the Detectron2 wheel installs a package named tools."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""The checkout that these tests stand in, if they do."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

needs_checkout = pytest.mark.skipif(
    not (ROOT / "setup.py").is_file(), reason="tests/ was copied out of the checkout"
)
"""For tests of the checkout's own files. All others run against an installed wheel too."""

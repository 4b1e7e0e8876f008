"""Importing the package: what it needs, what it does, what it leaves alone."""

import subprocess
import sys

_WITHOUT_DETECTRON2 = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "detectron2":
            raise ModuleNotFoundError(f"No module named {name!r}", name="detectron2")

sys.meta_path.insert(0, Missing())
import resnest_d2
"""

_STOCK_STAYS = """
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY

before, builders = get_cfg(), set(dict(BACKBONE_REGISTRY))
import resnest_d2

assert get_cfg() == before
assert set(dict(BACKBONE_REGISTRY)) - builders == {
    "build_resnest_backbone",
    "build_resnest_fpn_backbone",
    "build_resnest_retinanet_fpn_backbone",
}
"""


def _python(code: str, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


def test_without_detectron2_the_error_says_how_to_get_it():
    done = _python(_WITHOUT_DETECTRON2)
    assert done.returncode == 1
    assert "pip install --no-build-isolation 'git+https://github.com/" in done.stderr
    assert "tools/install_detectron2.py" in done.stderr


def test_import_adds_builders_and_changes_no_default(tmp_path):
    done = _python(_STOCK_STAYS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())

"""Importing the package: what it needs, what it does, what it leaves alone."""

import subprocess
import sys

import pytest
from examples import parsers_of

from resnest_d2_command import main
from resnest_d2_command.commands import COMMANDS
from resnest_d2_command.parsers import build_parser

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


_ADDS_NOTHING_HEAVY = """
import sys

import detectron2.checkpoint, detectron2.config, detectron2.data, detectron2.modeling
import detectron2.model_zoo

before = {name.partition(".")[0] for name in sys.modules}
import resnest_d2

print(*sorted({name.partition(".")[0] for name in sys.modules} - before))
"""

_EVERY_HELP = """
import sys

from resnest_d2_command import main

for words in {commands}:
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0
heavy = {{"torch", "torchvision", "numpy", "detectron2", "resnest_d2", "yaml", "PIL", "matplotlib"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_import_adds_no_heavy_package_to_detectron2():
    done = _python(_ADDS_NOTHING_HEAVY)
    assert done.returncode == 0, done.stderr
    heavy = "cv2 hotcoco huggingface_hub matplotlib onnx pandas scipy tensorboard timm wandb"
    assert not set(done.stdout.split()) & set(heavy.split())
    assert "resnest_d2" in done.stdout


def test_no_help_imports_a_heavy_package(capsys):
    commands = [parser.prog.split()[1:] for parser in parsers_of(build_parser())]
    assert [] in commands and ["data", "check"] in commands
    done = _python(_EVERY_HELP.format(commands=commands))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Exit codes: 0 ") == len(commands)
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert done.stdout.startswith(shown)
    assert all(f"    {name}" in shown for name in COMMANDS)

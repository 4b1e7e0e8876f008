"""Every example of a ``--help``, of README.md and of ``docs/*.md`` does what it says.

Each command is read by a shell and by the real parser, and runs in this process, in a folder that
has what it names, with options behind it that make it small. What cannot run here is listed with
its reason.
"""

import contextlib
import functools
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from checkout import ROOT, needs_checkout
from detectors import small_detector
from examples import (
    Example,
    commands_of_file,
    help_examples,
    parsers_of,
    python_of_file,
    words_of,
)
from trained import train_family
from workspace import CLASSIFIER, SMALLER, Material, enter, forget_data_sets, make_material

from detectron2.data import DatasetCatalog

import resnest_d2
from resnest_d2.analysis import saliency
from resnest_d2.config import read_config
from resnest_d2_command import main
from resnest_d2_command.doctor.children import run_steps
from resnest_d2_command.parsers import build_parser

pytestmark = needs_checkout

PARSERS = {parser.prog: parser for parser in parsers_of(build_parser())}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

NOT_RUN = {
    r"make \w+": "sets up an environment, or is the test suite",
    r"pip install ": "installs from the network",
    r"(srun )?torchrun ": "needs several GPUs; tests/engine/test_processes.py starts torchrun",
    r".*--num-machines 2": "needs two machines",
    r"resnest-d2 benchmark --scaling": "takes minutes; tests/benchmark/test_scaling.py is small",
}
"""What only the parser reads, and why."""

SLOW = {
    r".* --optimize\b": "compiles",
    r"resnest-d2 export ": "each file runs in a process of its own",
    r"resnest-d2 benchmark .*(optimized|--training)": "compiles, or has large networks",
    r"resnest-d2 benchmark$": "builds every network",
    r".* RESNEST.SEGMENT.SCALES ": "has large windows",
    r"export.md": "needs the files of all formats",
}
"""What is left to ``-m slow``, and why."""

ADDED = {
    "train": (*SMALLER, "SOLVER.MAX_ITER", "3"),
    "evaluate": SMALLER,
    "predict": ("--device", "cpu", "--score-threshold", "0.05"),
    "explain": ("--device", "cpu", "--score-threshold", "0.05"),
    "export": ("--score-threshold", "0.2"),
    "compare": ("--resamples", "40"),
    "study": ("--dry-run",),
    "benchmark": ("--runs", "1", "--size", "32", "32"),
}
"""What makes a command small."""

CODES = {r".*--verify": 1}
"""Exit codes other than 0: random weights have no published AP."""


def _commands() -> list[Example]:
    examples = [example for parser in PARSERS.values() for example in help_examples(parser)]
    examples += [example for file in DOCUMENTS for example in commands_of_file(file)]
    return list({example.text: example for example in examples}.values())


def _first(table: dict, text: str):
    return next((value for pattern, value in table.items() if re.match(pattern, text)), None)


def _param(example: Example):
    marks = [pytest.mark.slow] if _first(SLOW, example.text) else []
    return pytest.param(example, marks=marks, id=f"{example.where}: {example.text}")


COMMANDS = _commands()
# The tool forwards to the command: an example that both have runs once.
TO_RUN = {e.text.replace("python tools/train_net.py", "resnest-d2 train"): e for e in COMMANDS}
RUN = [_param(example) for example in TO_RUN.values() if not _first(NOT_RUN, example.text)]


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FVCORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return make_material(tmp_path_factory.mktemp("examples"))


@functools.cache
def _probed(steps: tuple[str, ...]) -> dict:
    return run_steps(list(steps))


def _probe_once(steps, begins):
    """The doctor's probes: several seconds, the same for all examples."""
    return _probed(tuple(steps))


@pytest.fixture
def workspace(material, tmp_path, monkeypatch):
    """An empty current folder, and no data set that an earlier run has registered."""
    known = DatasetCatalog.list()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(material.weights))
    monkeypatch.setattr(saliency, "_STEPS", 4)
    # The configs that the weights belong to.
    for read in (resnest_d2.get_config, read_config):
        small = functools.partial(read, opts=SMALLER)
        monkeypatch.setattr(f"resnest_d2.model_zoo.trained.{read.__name__}", small)
    monkeypatch.setattr("resnest_d2_command.doctor.command.run_steps", _probe_once)
    yield tmp_path
    forget_data_sets(known)


def _arguments(words: list[str]) -> list[str]:
    """What ``resnest-d2`` is given by a command that starts it in one way or another."""
    if words[0] == "resnest-d2":
        return words[1:]
    if words[:2] == ["python", "tools/train_net.py"]:
        return ["train", *words[2:]]
    if words[:3] == ["python", "-m", "resnest_d2_command"]:
        return words[3:]
    if "torchrun" in words:
        return words[words.index("resnest_d2.cli") + 1 :]
    raise AssertionError(f"no rule for {words}: add one to this file")


def _small(arguments: list[str]) -> list[str]:
    """With fewer processes and with ``ADDED``."""
    if "--help" in arguments:
        return arguments
    if "--num-gpus" in arguments:
        place = arguments.index("--num-gpus")
        arguments = arguments[:place] + arguments[place + 2 :]
    added = list(ADDED.get(arguments[0], ()))
    if arguments[:2] in (["export", "runs/street"], ["export", "runs/birds"]):
        added = []  # no detections, no threshold
    if "classify_resnest50" in arguments:
        added += CLASSIFIER
    starts_anew = arguments[0] == "train" and not {"--eval-only", "--resume"} & {*arguments}
    if starts_anew and "--init-from" not in arguments:
        added += ["MODEL.WEIGHTS", ""]
    return [*arguments, *added]


def _run(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code or 0


def test_every_exception_is_needed():
    texts = [example.text for example in COMMANDS] + [file.name for file in DOCUMENTS]
    for pattern in (*NOT_RUN, *SLOW, *CODES):
        assert any(re.match(pattern, text) for text in texts), pattern


@pytest.mark.parametrize("prog", PARSERS)
def test_every_help_has_examples_and_exit_codes(prog):
    text = PARSERS[prog].format_help()
    assert help_examples(PARSERS[prog])
    assert re.search(r"^Exit codes: 0 ", text, re.MULTILINE)


@pytest.mark.parametrize("example", COMMANDS, ids=lambda e: f"{e.where}: {e.text}")
def test_the_parser_takes_every_example(example, workspace, material):
    program = example.text.split()[0]
    if program in ("make", "pip"):
        targets = re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert program == "pip" or example.text.split()[1] in targets
        return
    enter(material, workspace, example.text)
    arguments = _arguments(words_of(example.text, workspace))
    if "--help" in arguments:
        assert " ".join(["resnest-d2", *arguments[:-1]]) in PARSERS
    else:
        build_parser().parse_args(arguments)


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """A run whose detections do not hang on rounding, as those of two iterations do."""
    return train_family("mask", tmp_path_factory.mktemp("learned") / "run")


@pytest.mark.parametrize("example", RUN)
def test_example_runs(example, workspace, material, capsys, request):
    enter(material, workspace, example.text)
    if example.text.startswith("resnest-d2 export runs/mine"):
        shutil.rmtree("runs/mine")
        shutil.copytree(request.getfixturevalue("learned"), "runs/mine")
    arguments = _small(_arguments(words_of(example.text, workspace)))
    code = _run(arguments)
    printed = capsys.readouterr()
    assert code == (_first(CODES, example.text) or 0), printed.out + printed.err
    if "--json" in arguments:
        json.loads(printed.out)
    for option in ("--out", "--output-json"):
        if option in arguments and "--dry-run" not in arguments:
            assert Path(arguments[arguments.index(option) + 1]).exists()


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.name, marks=[pytest.mark.slow] if file.name in SLOW else [])
        for file in DOCUMENTS
        if python_of_file(file)
    ],
)
def test_python_runs_and_prints_what_is_said(file, workspace, material, monkeypatch):
    """Block after block, as in a notebook."""
    blocks = python_of_file(file)
    enter(material, workspace, "\n".join(["runs/mine", *(block.text for block in blocks)]))
    if file.name == "export.md":
        _export_files()
    train = resnest_d2.train

    def train_a_little(*args, opts=(), **kwargs):
        small = {**_pairs(SMALLER), "MODEL.WEIGHTS": ""}
        if "RESNEST.EPOCHS.MAX" in opts:  # iterations would contradict it
            del small["SOLVER.MAX_ITER"], small["SOLVER.WARMUP_ITERS"]
            small["RESNEST.EPOCHS.MAX"] = 4
        if args[0] == "classify_resnest50":
            small |= _pairs(CLASSIFIER)
        given = {**_pairs(opts), **small}
        return train(*args, opts=[word for pair in given.items() for word in pair], **kwargs)

    monkeypatch.setattr(resnest_d2, "train", train_a_little)
    names = {"model": small_detector("mask")}  # a detector that the reader has
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text, file.name, "exec"), names)
        if block.output:
            assert printed.getvalue() == block.output


def _pairs(opts: Sequence) -> dict:
    return dict(zip(opts[::2], opts[1::2], strict=True))


def _export_files() -> None:
    """The files that the blocks of export.md open."""
    if torch.__version__ < "2.6":
        pytest.skip("torch-export needs PyTorch 2.6")
    for file, format, part in (
        ("model.onnx", "onnx", "model"),
        ("model.pt", "torchscript", "model"),
        ("backbone.pt2", "torch-export", "backbone"),
    ):
        how = ["--format", format, "--part", part, *ADDED["export"]]
        assert main(["export", "runs/mine", file, *how]) == 0

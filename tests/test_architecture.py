"""The rooms: imports point downwards, no circle of files, small rooms, names that say one thing."""

import ast
import graphlib
import re
import warnings
from collections import Counter
from pathlib import Path

import grimp
import pytest

import resnest_d2

PACKAGE = Path(resnest_d2.__file__).parent

# From the lowest floor. A room may import those on its own line and above it in this list.
FLOORS = (
    ("_detectron2", "_moved", "errors", "files", "hardware", "progress", "text", "version"),
    ("config",),
    ("modeling",),
    ("checkpoint",),
    ("model_zoo",),
    ("data",),
    ("evaluation", "inference"),
    ("engine",),
    ("predict",),
    ("export",),
    ("benchmark",),
    ("analysis",),
    ("draw",),
    ("report",),
    ("study",),
    ("api",),
    ("cli",),
)
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
LAZILY = {("predict", "draw")}  # inside of a function that draws
MOST_FILES = 13  # of a room, its __init__ included
SEVERAL = {"__init__", "__main__", "common"}  # names that many rooms have


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(
        "resnest_d2", "resnest_d2_command", cache_dir=None, exclude_type_checking_imports=True
    )


def _imports(graph):
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            yield importer, imported


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_there_is_no_circle_of_files(graph):
    needs = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    graphlib.TopologicalSorter(needs).prepare()  # raises a CycleError that names the circle


def test_imports_point_downwards(graph):
    upwards = []
    for importer, imported in _imports(graph):
        if not (importer.startswith("resnest_d2.") and imported.startswith("resnest_d2.")):
            continue
        rooms = _room(importer), _room(imported)
        if HEIGHT[rooms[0]] < HEIGHT[rooms[1]]:
            lines = graph.get_import_details(importer=importer, imported=imported)
            file = PACKAGE.parent / f"{importer.replace('.', '/')}.py"
            text = file.read_text(encoding="utf-8").splitlines()
            lazy = all(text[line["line_number"] - 1].startswith(" ") for line in lines)
            if not (lazy and rooms in LAZILY):
                upwards.append(f"{importer} -> {imported}")
    assert not upwards


def test_the_commands_package_needs_nothing_of_the_package_but_to_run_it(graph):
    """It must start where PyTorch cannot be imported; only its signals are used elsewhere."""
    for importer, imported in _imports(graph):
        ours, theirs = (name.split(".")[0] for name in (importer, imported))
        if (ours, theirs) == ("resnest_d2_command", "resnest_d2"):
            assert importer in ("resnest_d2_command.entry", "resnest_d2_command.doctor.probes")
        if (ours, theirs) == ("resnest_d2", "resnest_d2_command"):
            assert imported == "resnest_d2_command.signals" or importer == "resnest_d2.cli.__main__"
    assert not graph.find_modules_directly_imported_by("resnest_d2_command.signals")


def _rooms() -> dict[Path, list[Path]]:
    packages = (PACKAGE, PACKAGE.parent / "resnest_d2_command")
    folders = {file.parent for package in packages for file in package.rglob("*.py")}
    return {folder: sorted(folder.glob("*.py")) for folder in folders if folder.name != "configs"}


def test_a_room_says_what_belongs_in_it_and_is_small():
    for folder, files in _rooms().items():
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), folder
        assert len(files) <= MOST_FILES or folder.name in ("cli", "parsers"), folder


def test_a_file_name_is_used_for_one_thing():
    """Commands have a file for their arguments and one for what they do, of the same name."""
    names = Counter(
        file.stem
        for folder, files in _rooms().items()
        for file in files
        if folder.name not in ("cli", "parsers")
    )
    assert {name for name, count in names.items() if count > 1} <= SEVERAL


def test_no_private_name_is_imported_from_another_file():
    found = []
    for files in _rooms().values():
        for file in files:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level:
                    found += [
                        f"{file.name}: {alias.name}"
                        for alias in node.names
                        if re.match(r"_[a-z]", alias.name) and not alias.name.startswith("__")
                    ]
    assert set(found) <= {"__init__.py: _detectron2", "__init__.py: _moved"}


def test_old_import_paths_work_with_a_warning():
    from resnest_d2 import draw, evaluation
    from resnest_d2.predict import many_files, predictor

    for old, new, name in (
        ("resnest_d2.visualize", draw, "draw_sheet"),
        ("resnest_d2.predictor", predictor, "Predictor"),
        ("resnest_d2.prediction", many_files, "predict_files"),
        ("resnest_d2.evaluation.coco", evaluation, "CocoEvaluator"),
    ):
        with pytest.warns(DeprecationWarning, match=f"{name} is now "):
            module = __import__(old, fromlist=[name])
            assert getattr(module, name) is getattr(new, name)
    with pytest.warns(DeprecationWarning, match=r"resnest_d2\.analysis\.read_evaluated_run"):
        assert evaluation.read_evaluated_run
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            evaluation.nothing  # noqa: B018

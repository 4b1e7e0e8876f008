"""The notebook of the documentation runs from its first cell to its last."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from checkout import ROOT, needs_checkout
from nbclient import NotebookClient

pytestmark = needs_checkout

TOUR = ROOT / "docs" / "tour.ipynb"


def _run(folder: Path, monkeypatch, **parameters) -> tuple[nbformat.NotebookNode, Path]:
    """The notebook after its run with other parameters, and the folder that it has filled."""
    notebook = nbformat.read(TOUR, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for name, value in parameters.items():
        line = f"{name} = {value}"
        first.source, found = re.subn(rf"^{name} = \S+", line, first.source, flags=re.M)
        assert found == 1, name
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in every test
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    (filled,) = folder.glob("tour-*")
    return notebook, filled


def _check(notebook: nbformat.NotebookNode, folder: Path) -> None:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 4
    printed = "".join(o.get("text", "") for o in outputs)
    assert re.search(r"^\d+ images, .*within", printed, re.M)  # the file and the model
    written = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert {"model.onnx", "comparison/comparison.md", "report.html"} <= written


def test_the_tour_runs(tmp_path, monkeypatch):
    _check(*_run(tmp_path, monkeypatch, ITERATIONS=5, IMAGES=12, PART='"backbone"'))


@pytest.mark.slow  # minutes
def test_the_tour_runs_as_it_is(tmp_path, monkeypatch):
    _check(*_run(tmp_path, monkeypatch))


def test_the_tour_is_stored_without_outputs():
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)

"""Which model can be which file: each cell of the table in docs/export.md is exported and verified.

``RESNEST_D2_WRITE_DOCS=1`` writes the table of this environment instead of comparing it.
"""

import os
import re
from pathlib import Path

import onnxruntime
import pytest
import torch
from segmentors import HEADS
from tabulate import tabulate
from trained import train_classifier, train_family, train_segmentor

from resnest_d2.export import FORMATS, export_checkpoint

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
MODERN = hasattr(torch.export.Dim, "DYNAMIC")
NAMES = {
    "faster": "Faster R-CNN",
    "mask": "Mask R-CNN",
    "cascade": "Cascade R-CNN",
    "cascade_mask": "Cascade Mask R-CNN",
    "retinanet": "RetinaNet",
    "deformable": "Faster R-CNN, deformable",
    "deformable_cascade_mask": "Cascade Mask R-CNN, deformable",
}
NAMES |= {head: head for head in HEADS} | {"classifier": "classifier"}
WITHOUT_THRESHOLD = ("classifier", *HEADS)
CELLS = [(family, "model", format) for family in NAMES for format in FORMATS]
CELLS += [("mask", part, format) for part in ("backbone", "bottom_up") for format in FORMATS]

_results: dict[tuple[str, str, str], str] = {}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """The run's folder of a family, trained when it is first asked for."""
    runs = {}

    def find(family: str) -> Path:
        if family not in runs:
            folder = tmp_path_factory.mktemp("runs") / "run"
            iterations = 700 if family == "retinanet" else 250
            if family in HEADS:
                runs[family] = train_segmentor(family, folder)
            elif family == "classifier":
                runs[family] = train_classifier(folder)
            else:
                runs[family] = train_family(family, folder, iterations=iterations)
        return runs[family]

    return find


def _must_refuse(family: str, part: str, format: str) -> str | None:
    """The reason that the user is given, in part."""
    if (
        format == "torch-export"
        and part == "model"
        and family not in ("retinanet", *WITHOUT_THRESHOLD)
    ):
        return "holds no detector"
    if format == "torch-export" and not MODERN:
        return "needs PyTorch 2.6"
    if format == "onnx" and "deformable" in family and not MODERN:
        return "no valid file of ONNX's opset 19"
    return None


@pytest.mark.parametrize(("family", "part", "format"), CELLS)
def test_a_cell_of_the_table(run_of, tmp_path, family, part, format):
    target = tmp_path / "file"
    reason = _must_refuse(family, part, format)
    # high enough for an image of one colour to have no detection
    threshold = None if family in WITHOUT_THRESHOLD else 0.2
    how = {"format": format, "part": part, "score_threshold": threshold}
    if reason:
        with pytest.raises((ValueError, RuntimeError), match=reason):
            export_checkpoint(run_of(family), target, **how)
        assert not os.listdir(tmp_path)
        _results[family, part, format] = "no"
        return
    agreement = export_checkpoint(run_of(family), target, **how).agreement
    print(f"\n{family}, {part}, {format}: {agreement}")
    assert agreement.images >= 10
    if family in HEADS:
        assert agreement.labels > 0.999
    elif family == "classifier":
        assert agreement.scores < 1e-4
    elif part == "model" and format != "torch-export":
        assert agreement.detections >= 10 and agreement.without_detection >= 1
        assert ("mask" in family) == (agreement.masks is not None)
    _results[family, part, format] = "yes"


def test_the_page_shows_what_the_cells_have_proved():
    if len(_results) < len(CELLS):
        pytest.skip("not all cells were run")
    rows = [
        [NAMES[family], *(_results[family, "model", format] for format in FORMATS)]
        for family in NAMES
    ]
    for part, name in (("backbone", "backbone + FPN"), ("bottom_up", "backbone alone")):
        rows.append([name, *(_results["mask", part, format] for format in FORMATS)])
    rows[4][3] = rows[4][3].replace("yes", "yes, before non-maximum suppression")
    table = tabulate(rows, ["", *FORMATS], tablefmt="github")
    torch_version = ".".join(torch.__version__.split(".")[:2])
    ort_version = ".".join(onnxruntime.__version__.split(".")[:2])
    title = f"### PyTorch {torch_version}, ONNX Runtime {ort_version}\n\n"
    page = PAGE.read_text(encoding="utf-8")
    section = re.compile(re.escape(title) + r"(\|.*\n)+")
    if os.environ.get("RESNEST_D2_WRITE_DOCS"):
        assert section.search(page), f"{PAGE.name} has no section {title.strip()}"
        PAGE.write_text(section.sub(title + table + "\n", page), encoding="utf-8")
        return
    assert title + table + "\n" in page

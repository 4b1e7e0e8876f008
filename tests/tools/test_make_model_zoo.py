"""MODEL_ZOO.md: current, complete, and quoted never beside measured in a column."""

import re

import pytest
from checkout import ROOT, load_tool, needs_checkout

from resnest_d2.model_zoo import CLASSIFIERS, MODELS, WEIGHTS

pytestmark = needs_checkout

PAGE = ROOT / "MODEL_ZOO.md"


@pytest.fixture(scope="module")
def tool():
    return load_tool("make_model_zoo")


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_is_current(tool, text):
    assert tool.page() == text, "stale: run python tools/make_model_zoo.py"
    catalog = tool.CATALOG.read_text(encoding="utf-8")
    assert tool.catalog() == catalog, "stale: run python tools/make_model_zoo.py"


def test_every_model_variant_and_file_has_a_row(text):
    for name in {**MODELS, **CLASSIFIERS, **WEIGHTS}:
        assert re.search(rf"^\| `{re.escape(name)}` ", text, flags=re.MULTILINE), name


def test_every_published_row_has_one_evaluation_command(text):
    lines = text.splitlines()
    for model in MODELS.values():
        assert lines.count(model.eval_command) == bool(model.published), model.name


def test_a_column_of_figures_is_quoted_or_measured(text):
    described = {"recipe", "task", "starts from", "network", "radix", "cardinality", "width"}
    described |= {"name", "format", "images", "hash", "licence", "note"}
    mixed, measured = re.fullmatch(r"(.*)(\n## Speed\n.*)\n## Weights.*", text, re.DOTALL).groups()
    assert measured.count("runs in turn") == 4  # the benchmark says how
    mixed += text.partition("## Weights")[2]
    tables = re.findall(r"^(\|.*\|)\n\|[-|:]+\|$", mixed, flags=re.MULTILINE)
    assert len(tables) == 9
    for header in tables:
        for cell in header.strip("|").split("|"):
            assert cell.strip() in described or cell.strip().endswith((", quoted", ", measured"))


def test_links_lead_somewhere(text):
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert f"## {target[1:].capitalize()}\n" in text
        else:
            assert (ROOT / target).is_file(), target


def test_the_chart_is_a_picture(tool, tmp_path):
    picture = tmp_path / "new" / "chart.png"
    tool.draw(picture)
    assert picture.read_bytes().startswith(b"\x89PNG") and len(list(picture.parent.iterdir())) == 1

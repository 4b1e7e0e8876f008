"""Builds the documentation site with Sphinx: ``make docs``.

Why Sphinx with MyST and the PyData theme (state of November 2026): the docstrings are written in
reStructuredText with cross-references, which the other generators do not read. All three are
maintained. MkDocs 1.x has no new releases, Material for MkDocs calls itself inactive since support
ended on 2026-11-05, and its successor Zensical is a beta version. Of the Sphinx themes, Furo had no
commit in 2026.

The pages in ``reference/`` are generated at each build, from the table of config keys, from the
parsers of the commands and from the names that each package exports. They are not committed.
"""

import argparse
import importlib
import inspect
import os
import pkgutil
import re
import shutil
import types
from collections.abc import Iterator
from pathlib import Path

import resnest_d2
from resnest_d2.config import KEYS, Key
from resnest_d2_command.parsers import build_parser

DOCS = Path(__file__).resolve().parent
REFERENCE = DOCS / "reference"
PACKAGES = {
    "resnest_d2": "the main functions and classes",
    "resnest_d2.modeling": "the network",
    "resnest_d2.model_zoo": "models, recipes and weights",
    "resnest_d2.checkpoint": "files of weights",
    "resnest_d2.data": "data sets, checks, loaders",
    "resnest_d2.engine": "training and evaluation runs",
    "resnest_d2.evaluation": "metrics",
    "resnest_d2.inference": "faster trained models",
    "resnest_d2.predict": "prediction of many files",
    "resnest_d2.export": "models as files",
    "resnest_d2.benchmark": "speed, memory and cost",
    "resnest_d2.analysis": "errors, comparisons, attention",
    "resnest_d2.draw": "images and charts",
    "resnest_d2.report": "the HTML report",
    "resnest_d2.study": "groups of trainings",
}
MEASUREMENTS = {
    "backbone": "Backbone, 640 × 800",
    "backbone_224": "Backbone, 224 × 224",
    "mask_rcnn": "Mask R-CNN",
    "cascade_mask_rcnn": "Cascade Mask R-CNN",
    "training": "Training step of the backbone",
    "variants": "All variants as classifiers",
    "scaling": "Scaling of inference",
    "scaling_training": "Scaling of training",
}
ROOT_PAGES = {"MODEL_ZOO.md": "model_zoo", "CHANGELOG.md": "changelog"}
ROOT_PAGES |= {"CONTRIBUTING.md": "contributing", "SECURITY.md": "security"}

project = "resnest-d2"
author = "resnest-d2 contributors"
copyright = author  # noqa: A001
version = release = resnest_d2.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["examples", "evidence/data", "evidence/summary.md"]
myst_heading_anchors = 3
# The headings of the changelog repeat; code blocks without a language are commands.
suppress_warnings = ["myst.header"]
highlight_language = "none"

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_ivar = True

html_theme = "pydata_sphinx_theme"
html_title = "resnest-d2"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}


def setup(app) -> None:
    shutil.rmtree(REFERENCE, ignore_errors=True)
    _write("keys", key_reference())
    _write("commands", command_reference())
    for package in PACKAGES:
        _write(f"api/{package}", api_reference(package))
    _write("api/index", api_index())
    for file, page in ROOT_PAGES.items():
        _write(page, root_page(DOCS.parent / file))

    app.connect("source-read", add_title)


def add_title(app, page: str, source: list[str]) -> None:
    """What `resnest-d2 benchmark` writes has no title."""
    if page.startswith("benchmark/"):
        source[0] = f"# {MEASUREMENTS[page.split('/')[1]]}\n\n{source[0]}"


def _write(page: str, text: str) -> None:
    path = REFERENCE / f"{page}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def key_reference() -> str:
    """Every config key of this project, by group."""
    lines = [
        "# Config keys",
        "",
        "All keys that `resnest_d2.add_resnest_config(cfg)` adds to a Detectron2 config. No "
        "default of Detectron2 changes. State them in a YAML file, or as `KEY VALUE` at the end "
        "of a command.",
        "",
        "The old names `RESNEST.OPTIMIZER` (now `SOLVER.OPTIMIZER`) and `RESNEST.EMA.DECAY` (now "
        "`MODEL_EMA`) still work, with a `DeprecationWarning`.",
    ]
    for group, keys in KEYS.items():
        lines += ["", f"## {group}"]
        for key in keys:
            lines += ["", f"### {key.name}", "", _facts(key), "", key.meaning]
    return "\n".join(lines) + "\n"


def _facts(key: Key) -> str:
    facts = [f"Default: `{key.default!r}`"]
    facts += [f"allowed: {key.allowed}"] if key.allowed else []
    facts += [f"unit: {key.unit}"] if key.unit else []
    return " · ".join(facts)


def command_reference() -> str:
    """The help of every command."""
    os.environ["COLUMNS"] = "78"
    text = ["# Commands\n\nThe help texts of `resnest-d2` and its commands.\n"]
    for parser in parsers_of(build_parser()):
        level = "##" if len(parser.prog.split()) < 3 else "###"
        text.append(f"{level} {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```\n")
    return "\n".join(text)


def parsers_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its sub-commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers_of(child)


def api_index() -> str:
    rows = "\n".join(f"- [`{name}`]({name}.md): {text}" for name, text in PACKAGES.items())
    pages = "\n".join(PACKAGES)
    return (
        "# Python API\n\nThe public names of each package. Everything in the first one can be "
        f"imported from `resnest_d2`.\n\n{rows}\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
    )


def api_reference(package: str) -> str:
    """The documented classes and functions of a package."""
    module = importlib.import_module(package)
    intro = re.sub(r":[a-z]+:`([^`]+)`", r"`\1`", inspect.getdoc(module)).replace("``", "`")
    text = [f"# {package}\n\n{intro}\n"]
    for place, name in sorted(public_names(module), key=lambda pair: pair[1].lower()):
        value = getattr(importlib.import_module(place), name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        kind, options = "autofunction", ""
        if inspect.isclass(value):
            kind, options = "autoclass", "   :members:\n"
        if package != "resnest_d2" and name in resnest_d2.__all__:  # it has its entry there
            options += "   :no-index:\n"
        text.append(f"## {name}\n\n```{{eval-rst}}\n.. {kind}:: {place}.{name}\n{options}```\n")
    return "\n".join(text)


def public_names(package: types.ModuleType) -> set[tuple[str, str]]:
    """Module and name of what a package exports, or its modules where it exports nothing itself."""
    if hasattr(package, "__all__"):
        return {(package.__name__, name) for name in package.__all__}
    found = set()
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not info.ispkg:
            module = importlib.import_module(info.name)
            found |= {(info.name, name) for name in module.__all__}
    return found


def root_page(file: Path) -> str:
    """A page of the repository's top, with links that work here."""
    text = file.read_text(encoding="utf-8").replace("](docs/", "](../")
    for other, page in ROOT_PAGES.items():
        text = text.replace(f"]({other}", f"]({page}.md")
    return text.replace("](README.md", "](../index.md")

"""The documentation site builds without a warning, and no link inside of it is dead."""

import html.parser
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from checkout import ROOT, needs_checkout
from examples import parsers_of

import resnest_d2
from resnest_d2.config import KEYS
from resnest_d2_command.parsers import build_parser

pytestmark = needs_checkout


class Page(html.parser.HTMLParser):
    """What a page can be linked to by, what it links to, and its text."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links, self.words = {""}, set(), []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            if name in ("href", "src") and value:
                self.links.add(value)

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Page]:
    """The site, built as `make docs` does, of a copy: it writes pages beside the others."""
    copy = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", copy / "docs", ignore=shutil.ignore_patterns("reference"))
    for page in ROOT.glob("*.md"):
        shutil.copy(page, copy)
    build = ["-m", "sphinx", "-W", "--keep-going", "-q", "docs", "built"]
    done = subprocess.run([sys.executable, *build], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = [path for path in (copy / "built").rglob("*.html") if "_static" not in path.parts]
    return {path.resolve(): Page(path) for path in files}


def page_of(site: dict[Path, Page], name: str) -> Page:
    (page,) = (page for path, page in site.items() if path.as_posix().endswith(f"/built/{name}"))
    return page


def test_no_link_inside_the_site_is_dead(site):
    dead = []
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target.is_file()
            if not there or (target in site and parts.fragment not in site[target].anchors):
                dead.append((path.name, link))
    assert len(site) > 30 and not dead


def test_the_reference_has_every_key_command_and_public_name(site):
    keys = page_of(site, "reference/keys.html").text
    assert all(key.name in keys for group in KEYS.values() for key in group)
    commands = page_of(site, "reference/commands.html").text
    assert all(f"usage: {parser.prog}" in commands for parser in parsers_of(build_parser()))
    api = page_of(site, "reference/api/resnest_d2.html").anchors
    modules = {"__version__", "model_zoo"}
    assert all(f"resnest_d2.{name}" in api for name in set(resnest_d2.__all__) - modules)


def test_the_first_page_shows_images_that_are_small(site):
    links = page_of(site, "index.html").links
    assert sum("_images/" in link for link in links) == 4
    assert sum(path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()) < 300_000

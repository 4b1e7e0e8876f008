"""README.md tells the truth: files, configs, commands and figures are there.

That its examples run is in ``test_examples.py``.
"""

import re

from checkout import ROOT, needs_checkout
from examples import parsers_of

from resnest_d2_command.commands import COMMANDS
from resnest_d2_command.parsers import build_parser

README = ROOT / "README.md"

pytestmark = needs_checkout


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    local = [link for link in links if "://" not in link]
    assert local
    for link in local:
        assert (ROOT / link).exists(), link


def test_every_config_that_the_readme_names_exists():
    names = set(re.findall(r"configs/(\w+\.yaml)", README.read_text()))
    names |= {
        f"{name}.yaml" for name in re.findall(r"`(\w+_resne[s]?t50_fpn)`", README.read_text())
    }
    assert len(names) >= 8
    for name in names:
        assert (ROOT / "configs" / name).is_file(), name


def test_the_table_of_the_readme_is_what_the_benchmark_wrote():
    written = (ROOT / "docs" / "benchmark" / "backbone" / "benchmark.md").read_text()
    assert written.partition("\n\n")[0] in README.read_text()


def test_the_table_of_commands_is_that_of_the_help():
    rows = re.findall(r"^\| `([a-z]+)` \| (.+) \|$", README.read_text(), re.MULTILINE)
    assert dict(rows) == COMMANDS and len(rows) == len(COMMANDS)


def test_every_command_and_option_in_a_sentence_exists():
    options = {p.prog: set(p._option_string_actions) for p in parsers_of(build_parser())}
    pages = [README, *(ROOT / "docs").glob("*.md")]
    named = [
        text for page in pages for text in re.findall(r"`(resnest-d2 [^`]+)`", page.read_text())
    ]
    assert named
    for text in named:
        words = text.split()
        prog = max((p for p in options if f"{text} ".startswith(f"{p} ")), key=len)
        assert len(prog.split()) > 1 or words[1:] == ["…"], text
        assert {w for w in words if w.startswith("--")} <= options[prog], text

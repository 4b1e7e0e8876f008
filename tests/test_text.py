"""Nothing that comes from a file does anything to the terminal, or forges a line."""

import logging

import pytest
import torch

from resnest_d2.checkpoint import read_weights
from resnest_d2.cli.common import fail, say
from resnest_d2.engine.training.records import protected_log_files
from resnest_d2.text import printable, printable_lines
from resnest_d2_command import main

NAME = "a\x1b[31m\r\n\u202eb\ud800\x9b"
SHOWN = r"a\x1b[31m\r\n\u202eb\ud800\x9b"


def test_what_cannot_be_printed_is_escaped_and_any_script_is_kept():
    assert printable(NAME) == SHOWN
    assert (
        printable_lines(f"{NAME}\nnext") == r"a\x1b[31m\r" + "\n" + r"\u202eb\ud800\x9b" + "\nnext"
    )
    for text in ("Hund", "собака", "犬", "كلب", "naïve – 100 %"):
        assert printable(text) == printable_lines(text) == text
    assert printable("abcdef", 3) == "abc…" and printable(7) == "7"


def test_what_commands_print_is_escaped(capsys):
    say(f"class {NAME}")
    fail(ValueError(f"no file {NAME}"))
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert r"\x1b[31m\r" in text and all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("name", ["a\x1b[31m\nresnest-d2: written", "b\udcff\n"])
def test_a_name_with_line_breaks_is_one_line_of_every_message(tmp_path, capsys, name):
    folder = tmp_path / name
    folder.mkdir()
    shown = f"{tmp_path}/{printable(name)}/x.pth"
    for there in (False, True):
        with pytest.raises(ValueError if there else FileNotFoundError) as refusal:
            read_weights(folder / "x.pth")
        assert shown in str(refusal.value) and str(refusal.value).isprintable()
        x, y = str(folder / "x.pth"), str(folder / "y.pth")
        for command in (["convert", x, y], ["replay", x], ["predict", y, "--checkpoint", x]):
            assert main(command) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert shown in line and line.isprintable()
        (folder / "x.pth").write_bytes(b"no weights")


def test_what_is_logged_is_escaped_but_for_detectron2s_colours():
    stream, lines = logging.StreamHandler(), []
    stream.emit = lambda record: lines.append(record.getMessage())
    log = logging.getLogger("detectron2")
    log.addHandler(stream)
    try:
        with protected_log_files():
            pass
        log.warning("%s classes: \x1b[36mtable\x1b[0m %s", 3, "a\x1b[2Jb\x1b[8m\u202e")
    finally:
        log.removeHandler(stream)
    assert lines == ["3 classes: \x1b[36mtable\x1b[0m " + r"a\x1b[2Jb\x1b[8m\u202e"]


def test_names_of_tensors_are_those_that_networks_have(tmp_path):
    for name in ("a\x1b[31m", "a\nb", "\u202ea", "x" * 2000):
        torch.save({"model": {name: torch.ones(1)}}, tmp_path / "w.pth")
        with pytest.raises(ValueError, match="which no network has") as refusal:
            read_weights(tmp_path / "w.pth")
        assert str(refusal.value).isprintable() and len(str(refusal.value)) < 400

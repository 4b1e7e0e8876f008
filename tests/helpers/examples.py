"""The examples of the documentation: every command and every block of Python, where it stands.

A help's examples are the lines below ``Examples:``: what for, with a colon, then the command,
further in. In Markdown they are the fenced blocks: without a language they are commands, ``python``
is Python, and ``text`` directly below Python is what it prints. Directives of the site, such as
``{toctree}``, are no examples. Another language is an error: it would be an example that nobody
runs.
"""

import argparse
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"^```(\S*)\n(.*?)^```$(?=(?:\s*^```text\n(.*?)^```$)?)", re.DOTALL | re.MULTILINE
)
_PROGRAMS = ("resnest-d2", "python", "torchrun", "srun", "make", "pip")
_SLURM = {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "7"}
_SLURM["SLURM_JOB_NODELIST"] = "machine[0-1]"


@dataclass(frozen=True)
class Example:
    """A command or a block of Python.

    Attributes:
        where: file, or command whose help it stands in.
        text: as it stands there, a command's lines joined.
        output: what a block of Python prints, where that is said.
    """

    where: str
    text: str
    output: str = ""


def parsers_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of all its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers_of(child)


def help_examples(parser: argparse.ArgumentParser) -> list[Example]:
    """The commands below ``Examples:`` of a help."""
    section = parser.format_help().partition("\nExamples:\n")[2].partition("\n\n")[0]
    lines = section.splitlines()
    titles = [line for line in lines if re.match(r"  \S", line)]
    commands = [line for line in lines if line.startswith("    ")]
    assert len(titles) + len(commands) == len(lines), f"{parser.prog}: neither in 2 nor in 4 spaces"
    wrong = [title for title in titles if not title.endswith(":")]
    assert not wrong, f"{parser.prog}: a line that says what for ends with a colon: {wrong}"
    return [Example(f"{parser.prog} --help", text) for text in _logical_lines("\n".join(commands))]


def commands_of_file(file: Path) -> list[Example]:
    """The commands of a Markdown file."""
    return [
        Example(file.name, line)
        for language, text, _ in _blocks(file)
        if not language
        for line in _logical_lines(text)
    ]


def python_of_file(file: Path) -> list[Example]:
    """The Python of a Markdown file, block by block."""
    return [
        Example(file.name, *block) for language, *block in _blocks(file) if language == "python"
    ]


def words_of(command: str, folder: Path) -> list[str]:
    """The words of a command, as bash in that folder passes them on."""
    functions = "".join(f'{name}() {{ printf "%s\\0" {name} "$@"; }}\n' for name in _PROGRAMS)
    functions += "scontrol() { echo machine0; }\n"
    done = subprocess.run(
        ["bash", "-c", f"set -u\n{functions}{command}"],
        cwd=folder,
        env={**os.environ, **_SLURM},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stderr, f"{command}: {done.stderr}"
    return done.stdout.split("\0")[:-1]


def _blocks(file: Path) -> list[tuple[str, str, str]]:
    """Language and text of each, and the output that follows directly."""
    blocks = _FENCE.findall(file.read_text(encoding="utf-8"))
    blocks = [block for block in blocks if not block[0].startswith("{")]
    unknown = {language for language, _, _ in blocks} - {"", "python", "text"}
    assert not unknown, f"{file.name} has blocks of {unknown}: which of them are to be run?"
    return blocks


def _logical_lines(text: str) -> list[str]:
    """Commands, each on one line, without comments."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    lines = (re.sub(r"\s+# .*|^#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]

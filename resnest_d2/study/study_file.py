"""The file of a study, and the commands that it stands for."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import error_text

_KEYS = ("options", "keys", "groups", "seeds", "compare", "threads")
_GROUP_KEYS = ("options", "keys")
_OWN_OPTIONS = ("resume", "eval-only", "output-json", "json", "quiet")  # set by the study
_OWN_KEYS = ("OUTPUT_DIR", "SEED")


@dataclass(frozen=True)
class StudyRun:
    """One training of a study.

    Attributes:
        folder: its ``OUTPUT_DIR``, a folder of the group's folder.
        arguments: of ``resnest-d2 train``; they are the same on every machine, so that a study can
            go on elsewhere. ``OUTPUT_DIR`` and the file of the results are not among them.
    """

    group: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]

    @property
    def label(self) -> str:
        """Such as ``resnest50/1``."""
        return f"{self.group}/{self.seed}"

    @property
    def results(self) -> Path:
        """The file of its metrics, which is written when all is done."""
        return self.folder / "results.json"

    @property
    def command(self) -> list[str]:
        """Arguments of ``resnest-d2`` that begin the run, or go on with it."""
        options = ["--resume", "--quiet", "--output-json", str(self.results)]
        return ["train", *options, *self.arguments, "OUTPUT_DIR", str(self.folder)]


@dataclass(frozen=True)
class StudyPlan:
    """A study.

    Attributes:
        folder: of its file; relative paths in the file begin here.
        out: folder of its results.
        runs: seed by seed, so that all groups are at the same seed if a study is stopped.
        comparisons: groups: a baseline, the other, more baselines for the gain at equal cost.
        validation: options that name the validation data.
        threads: of each run.
    """

    folder: Path
    out: Path
    runs: tuple[StudyRun, ...]
    comparisons: tuple[tuple[str, ...], ...]
    validation: tuple[str, ...]
    threads: int

    def commands(self) -> list[list[str]]:
        """Arguments of ``resnest-d2`` for the whole study."""
        comparisons = [self.comparison_commands(groups) for groups in self.comparisons]
        return [*(run.command for run in self.runs), *(c for pair in comparisons for c in pair)]

    def comparison_commands(self, groups: Sequence[str]) -> list[list[str]]:
        """Arguments of ``resnest-d2`` that write a comparison and a page about it."""
        baseline, other, *more = (str(self.out / group) for group in groups)
        folder = self.comparison_folder(groups)
        line = ["--more-baselines", *more] if more else []
        first = [next(str(run.folder) for run in self.runs if run.group == g) for g in groups[:2]]
        page = str(folder / "report.html")
        return [
            ["compare", baseline, other, *line, *self.validation, "--quiet", "--out", str(folder)],
            ["report", *first, *self.validation, "--quiet", "--out", page],
        ]

    def comparison_folder(self, groups: Sequence[str]) -> Path:
        return self.out / f"{groups[1]}-against-{groups[0]}"


def read_study(file: str | os.PathLike, out: str | os.PathLike | None = None) -> StudyPlan:
    """Read a study's file.

    Args:
        file: YAML. ``groups``: what is compared, each with the ``options`` of ``resnest-d2 train``
            and the config ``keys`` that it does not share. ``options``, ``keys``: those of all
            groups. ``seeds``: a list of numbers. ``compare``: pairs of groups, the baseline first.
            ``threads``: of each run, by default 1. ``{group}`` and ``{seed}`` in a value are
            replaced.
        out: folder of the results; by default beside the file, with its name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not YAML, or a key or a value in it is invalid.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return _plan(content, file.resolve(), out)
    except (yaml.YAMLError, ValueError) as error:
        text = " ".join(error_text(error).split())
        raise ValueError(f"{file}: {text}") from error


def _plan(content: Any, file: Path, out: str | os.PathLike | None) -> StudyPlan:
    content = _mapping(content, "a study", _KEYS)
    groups = _mapping(content.get("groups"), "groups")
    if not groups:
        raise ValueError("groups must name at least one group")
    seeds = content.get("seeds", [1])
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(type(seed) is int and seed >= 0 for seed in seeds)
        or len(set(seeds)) < len(seeds)
    ):
        raise ValueError(f"seeds must be a list of different numbers from 0, got {seeds}")
    threads = content.get("threads", 1)
    if type(threads) is not int or threads < 1:
        raise ValueError(f"threads must be a number from 1, got {threads}")
    comparisons = content.get("compare", [])
    if not isinstance(comparisons, list):
        raise ValueError(f"compare must be a list of lists of groups, got {comparisons}")
    for names in comparisons:
        if not isinstance(names, list) or len(names) < 2 or not set(names) <= set(groups):
            raise ValueError(f"compare must have lists of two or more groups, got {names}")

    out = Path(out).resolve() if out else file.with_suffix("")
    shared = content.get("options"), content.get("keys")
    arguments = {}
    for group, own in groups.items():
        if type(group) is not str or group != Path(group).name or group.startswith("."):
            raise ValueError(f"the name of a group must be that of a folder, got {group!r}")
        own = _mapping(own, f"group {group}", _GROUP_KEYS)
        options, keys = (
            _mapping(whole, what) | _mapping(own.get(what), f"{what} of {group}")
            for what, whole in zip(_GROUP_KEYS, shared, strict=True)
        )
        for what, given, taken in (
            ("options", options, _OWN_OPTIONS),
            ("keys", keys, _OWN_KEYS),
        ):
            if found := sorted({*given} & {*taken}):
                raise ValueError(f"{what} of {group} has {found[0]}, which the study itself sets")
        arguments[group] = options, keys
    runs = []
    for seed in seeds:
        for group, (options, keys) in arguments.items():
            texts = [*_option_texts(options), *_key_texts(keys), "SEED", str(seed)]
            names = {"{group}": group, "{seed}": str(seed)}
            texts = [_replaced(text, names) for text in texts]
            runs.append(StudyRun(group, seed, out / group / str(seed), tuple(texts)))
    options = next(iter(arguments.values()))[0]
    validation = {
        name: options[name]
        for name in ("val-json", "val-labels", "val-images")
        if isinstance(options.get(name), str)
    }
    return StudyPlan(
        folder=file.parent,
        out=out,
        runs=tuple(runs),
        comparisons=tuple(map(tuple, comparisons)),
        validation=tuple(_option_texts(validation)),
        threads=threads,
    )


def _mapping(value: Any, name: str, known: Sequence[str] = ()) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a mapping, got {value!r}")
    if known and (unknown := [key for key in value if key not in known]):
        raise ValueError(f"{name} has no key {unknown[0]!r}; its keys are {', '.join(known)}")
    return value


def _option_texts(options: Mapping[str, Any]) -> list[str]:
    """``{"val-json": "v.json", "trust-pickle": True}`` as on a command line; lists repeat one."""
    texts = []
    for name, value in options.items():
        for item in value if isinstance(value, list) else [value]:
            texts += [f"--{name}"] if item is True else [f"--{name}", str(item)]
    return texts


def _key_texts(keys: Mapping[str, Any]) -> list[str]:
    return [text for key, value in keys.items() for text in (str(key), str(value))]


def _replaced(text: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(name, value)
    return text

"""Versions in the metadata of installed distributions; nothing is imported."""

import importlib.metadata
from typing import NamedTuple

try:
    from packaging import requirements as parsing
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version
except ImportError:  # matplotlib does not import then, either: see its check
    parsing = None

OURS = "resnest-d2"


class Requirement(NamedTuple):
    """A distribution that resnest-d2 needs, and which versions (``>=2.3``, or "" for any)."""

    name: str
    specifier: str = ""


def version(name: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(name: str) -> bool:
    return version(name) is not None


def requirements(name: str) -> list[Requirement]:
    """The requirements of a distribution without extras; empty where they are unknown."""
    if not (installed(name) and parsing):
        return []
    lines = importlib.metadata.requires(name) or []
    parsed = (parsing.Requirement(line) for line in lines if ";" not in line)  # no extras
    return [Requirement(one.name, str(one.specifier)) for one in parsed]


def satisfies(have: str, specifier: str) -> bool | None:
    """Whether a version fits; None where it cannot be compared."""
    if not parsing:
        return None
    try:
        return SpecifierSet(specifier).contains(Version(have), prereleases=True)
    except InvalidVersion:
        return None


def providers(module: str) -> list[str]:
    """The distributions that own a top-level module: two overwrite each other's files."""
    return sorted(set(importlib.metadata.packages_distributions().get(module, ())))

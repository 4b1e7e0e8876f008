"""Versions as the installed distributions' metadata state them: nothing is imported."""

import importlib.metadata
import re
from typing import NamedTuple

__all__ = ["Requirement", "installed", "providers", "requirements", "satisfies", "version"]

OURS = "resnest-d2"


class Requirement(NamedTuple):
    """One distribution that resnest-d2 needs, and which versions (``>=2.3``, or "" for any)."""

    name: str
    specifier: str


def version(name: str) -> str | None:
    """The version of a distribution, None where there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(name: str) -> bool:
    return version(name) is not None


def requirements(name: str) -> list[Requirement]:
    """What a distribution needs, without its extras; empty where it is not installed."""
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        text, _, marker = line.partition(";")
        parts = re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?\s*\(?([^)]*)\)?", text.strip())
        if parts and not marker:  # a marker is an extra, or another platform
            found.append(Requirement(parts[1], parts[2].replace(" ", "")))
    return found


def satisfies(have: str, specifier: str) -> bool | None:
    """Whether a version fits, None where nothing here can compare versions."""
    try:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
        from packaging.version import InvalidVersion, Version
    except ImportError:
        try:
            from pip._vendor.packaging.specifiers import InvalidSpecifier, SpecifierSet
            from pip._vendor.packaging.version import InvalidVersion, Version
        except ImportError:
            return None
    try:
        return SpecifierSet(specifier).contains(Version(have), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return None


def providers(module: str) -> list[str]:
    """The distributions that own a top-level module: two of them overwrite each other's files."""
    return sorted(set(importlib.metadata.packages_distributions().get(module, ())))

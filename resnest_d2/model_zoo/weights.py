"""Published files of weights: where they are, how they are checked, what they expect."""

from dataclasses import dataclass

from ..checkpoint.statistics import InputStatistics

__all__ = ["WEIGHTS", "WeightFile"]


@dataclass(frozen=True)
class WeightFile:
    """One published file.

    Attributes:
        name: as in ``resnest://NAME``.
        urls: mirrors, tried in this order.
        sha256: all 64 hex digits, or the first 8, which published file names carry, or "" where
            nothing is known.
        format: a name of :mod:`resnest_d2.checkpoint.convert`'s formats.
        statistics: how images must be given to it.
        license: SPDX name.
        note: what a user should know.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    format: str
    statistics: InputStatistics
    license: str
    note: str = ""


WEIGHTS: dict[str, WeightFile] = {}

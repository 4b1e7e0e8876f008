"""Problems of a COCO data set: where they are, what was found, and how they are reported."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...text import printable
from .kinds import KINDS, WARNINGS

SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}

_EXAMPLES = 3  # of a kind of warnings
_SHOWN = 8  # of a list's values
_SHOWN_TEXT = 200  # characters


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Attributes:
        file: the JSON file or the image file.
        id: of the image, annotation or category; its place, such as ``"annotations[5]"``, where it
            has no id; None for the file as a whole.
        kind: one of :data:`KINDS`.
        value: what was found, in JSON's types.
        entry: section and index in the JSON file of what is left out with ``skip``.
    """

    file: str
    id: int | float | str | None
    kind: str
    value: object
    entry: tuple[str, int] | None = None

    @property
    def severity(self) -> str:
        """``"warning"`` or ``"error"``."""
        return "warning" if self.kind in WARNINGS else "error"

    def as_dict(self) -> dict:
        """For JSON: file, id, kind, value and severity."""
        keys = ("file", "id", "kind", "value", "severity")
        return {key: getattr(self, key) for key in keys}


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """The problems that are not only warnings."""
    return [problem for problem in problems if problem.severity == "error"]


def shown(value: object, levels: int = 6) -> object:
    """``value`` for a reader: long lists and texts cut, NaN and infinity (no JSON) as texts.

    Lists in lists end after so many ``levels``.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (str, int, float, type(None))):
        if isinstance(value, str) and len(value) > _SHOWN_TEXT:
            return value[:_SHOWN_TEXT] + "…"
        if type(value) is int and abs(value) >= 1 << 256:  # Python refuses to print longer ones
            return "an integer of more than 256 bits"
        return value
    if not levels:
        return "…"
    if isinstance(value, (list, tuple)):
        more = [f"… {len(value) - _SHOWN} more"] if len(value) > _SHOWN else []
        return [shown(v, levels - 1) for v in value[:_SHOWN]] + more
    return {str(key): shown(v, levels - 1) for key, v in list(value.items())[:_SHOWN]}


def counted(number: int, noun: str) -> str:
    """Such as "1 problem" or "2 problems"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def count_kinds(problems: Iterable[Problem]) -> dict[str, int]:
    """How many problems there are of each kind, in the order of KINDS."""
    counts = Counter(problem.kind for problem in problems)
    return {kind: counts[kind] for kind in KINDS if kind in counts}


def report(problems: Sequence[Problem], limit: int = 20) -> str:
    """Problems as lines: how many of each kind and what it means, then up to ``limit`` examples.

    Every kind shows one example before a kind shows its second, and warnings show few.
    """
    width = max((len(problem.kind) for problem in problems), default=0)
    lines = [
        f"  {count:6d} {kind:{width}}  {KINDS[kind]}"
        for kind, count in count_kinds(problems).items()
    ]
    turns: Counter[str] = Counter()
    ranked = []
    for place, problem in enumerate(problems):
        if problem.severity == "error" or turns[problem.kind] < _EXAMPLES:
            ranked.append((turns[problem.kind], place))
        turns[problem.kind] += 1
    first = sorted(place for _, place in sorted(ranked)[:limit])
    for problem in (problems[place] for place in first):
        where = "" if problem.id is None else f", {_named(problem)}"
        lines.append(printable(f"{problem.file}{where}: {problem.kind}: {_text(problem.value)}"))
    if len(problems) > len(first):
        lines.append(f"… and {len(problems) - len(first)} more")
    return "\n".join(lines)


def _named(problem: Problem) -> str:
    section = problem.entry[0] if problem.entry else ""
    if isinstance(problem.id, str) and problem.id.startswith(f"{section}["):
        return problem.id
    return f"{SINGULAR.get(section, 'id')} {problem.id}"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(v)}" for key, v in value.items())
    return str(value)

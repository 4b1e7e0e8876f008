"""Keypoints that a horizontal flip exchanges, by their names.

A flipped left eye is a right eye. Detectron2 exchanges the pairs that a data set's metadata names;
without them it teaches the model left for right.
"""

import re
from collections.abc import Sequence

_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
_LONGEST = 200  # characters that are read of a name
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|\d+")


def flip_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (left, right) of names that differ in their side alone.

    A side is ``left``, ``right``, ``l`` or ``r`` in any letter case, as a word of its own
    (``L_eye``, ``Left eye``, ``eye_l``, ``leftEye``), or ``left`` and ``right`` within a word
    (``lefteye``). A name that could be in several pairs is in none.
    """
    by_words: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        same = by_words.setdefault(_words(name), [])
        if len(same) < 2:  # two are as ambiguous as more
            same.append(name)

    def partners(name: str) -> list[str]:
        return [other for words in _mirrored(_words(name)) for other in by_words.get(words, ())]

    return [
        (name, other)
        for name in names
        for other in partners(name)
        if _is_left(name) and partners(name) == [other] and partners(other) == [name]
    ]


def unpaired_names(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names with a side, as a word of its own, that are in no pair."""
    paired = {name for pair in pairs for name in pair}
    return [n for n in names if n not in paired and _SIDES.keys() & set(_words(n))]


def check_flip_pairs(key: str, pairs: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    """Raise a ValueError unless these are pairs of different names, each name in one pair."""
    flat = [name for pair in pairs for name in pair]
    doubled = len(set(flat)) < len(flat)
    if any(len(pair) != 2 for pair in pairs) or doubled or set(flat) - set(names):
        raise ValueError(
            f"{key} must be pairs of two of the keypoints {', '.join(names)}, each in one pair at "
            f"most, got {pairs}"
        )


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORDS.findall(name[:_LONGEST]))


def _is_left(name: str) -> bool:
    return any(word == "l" or "left" in word for word in _words(name))


def _mirrored(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The words with one side exchanged, for each word that has one."""
    found = []
    for place, word in enumerate(words):
        other = _SIDES.get(word)
        if other is None and ("left" in word) != ("right" in word):
            other = re.sub("left|right", lambda match: _SIDES[match[0]], word)
        if other is not None:
            found.append((*words[:place], other, *words[place + 1 :]))
    return found

"""Masks in COCO's run-length encoding, looked at without pycocotools, which trusts its input.

A mask of (H, W) pixels, column by column, is told by the lengths of its runs: background first,
then object, then background, … As a list they are plain numbers. As a text, each number is a
little-endian row of 5-bit digits, one a character (48 added, bit 5 for "goes on", bit 4 of the last
digit for the sign), and from the fourth on it is the difference from the number two before.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["check_counts", "check_texts"]

_DIGITS = 7  # of a number: 35 bits, more than any image's pixels
_CHUNK = 4096  # texts decoded together, to bound memory


def check_counts(counts: Sequence[int], pixels: int) -> str | None:
    """What is wrong with plain counts of a mask of so many pixels, if anything."""
    if not set(map(type, counts)) <= {int}:
        return "the counts are not all integers"
    if counts and min(counts) < 0:
        return f"a count is {min(counts)}"
    total = sum(counts)
    return None if total == pixels else f"the counts fill {total} of {pixels} pixels"


def check_texts(texts: Sequence[str], pixels: Sequence[int]) -> list[str | None]:
    """What is wrong with each of several compressed texts (None: nothing).

    Args:
        texts: the counts of masks.
        pixels: H·W of each.
    """
    found: list[str | None] = []
    for start in range(0, len(texts), _CHUNK):
        found += _check_chunk(texts[start : start + _CHUNK], pixels[start : start + _CHUNK])
    return found


def _check_chunk(texts: Sequence[str], pixels: Sequence[int]) -> list[str | None]:
    raw = [text.encode("utf-8", "replace") for text in texts]
    lengths = np.array([len(text) for text in raw])
    ends = np.cumsum(lengths)
    codes = np.frombuffer(b"".join(raw), dtype=np.uint8).astype(np.int64) - 48
    owner = np.repeat(np.arange(len(raw)), lengths)  # the text of each character

    found: list[str | None] = [None] * len(raw)
    alien = (codes < 0) | (codes > 63)
    last = (codes & 32) == 0  # the last digit of a number
    unfinished = ~last[ends[lengths > 0] - 1]
    for text in np.flatnonzero(lengths == 0):
        found[text] = "the text is empty"
    for text in np.flatnonzero(lengths > 0)[unfinished]:
        found[text] = "the text ends within a number"
    for text in np.unique(owner[alien]):
        found[text] = "the text has characters that no RLE has"

    bad = np.array([message is not None for message in found])
    keep = ~bad[owner]
    codes, owner, last = codes[keep], owner[keep], last[keep]
    if not codes.size:
        return found
    starts = np.flatnonzero(np.r_[True, last[:-1]])  # the first digit of each number
    digits = np.diff(np.r_[starts, codes.size])
    place = np.arange(codes.size) - np.repeat(starts, digits)
    long = digits > _DIGITS
    for text in np.unique(owner[starts][long]):
        found[text] = "a number of the text is longer than any image"
    values = np.add.reduceat((codes & 31) << (5 * np.minimum(place, _DIGITS)), starts)
    negative = (codes[starts + digits - 1] & 16) != 0
    values -= np.where(negative, 1 << (5 * np.minimum(digits, _DIGITS)), 0)
    owner = owner[starts]  # of each number

    # From differences to counts: sums over every second number, the very first one apart.
    first = np.searchsorted(owner, owner)  # index of the text's first number
    position = np.arange(owner.size) - first
    counts = values.copy()
    for parity in (0, 1):
        chosen = np.flatnonzero((position % 2 == parity) & (position > 0))
        if not chosen.size:
            continue
        sums = np.cumsum(values[chosen])
        begins = np.searchsorted(owner[chosen], owner[chosen])
        counts[chosen] = sums - (sums[begins] - values[chosen][begins])
    totals = np.bincount(owner, weights=counts, minlength=len(raw)).astype(np.int64)
    negative = {int(text) for text in owner[counts < 0]}
    for text in np.unique(owner).tolist():
        if found[text] is None and text in negative:
            found[text] = "a count is negative"
        elif found[text] is None and totals[text] != pixels[text]:
            found[text] = f"the counts fill {totals[text]} of {pixels[text]} pixels"
    return found

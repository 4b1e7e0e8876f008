"""Masks in COCO's run-length encoding, checked without pycocotools, which trusts its input.

A mask of (H, W) pixels, column by column, is stored as the lengths of its runs: background first,
then object, then background, … A list holds plain numbers. In a text, each number is a
little-endian row of 5-bit digits, one a character (48 added, bit 5 for "goes on", bit 4 of the last
digit for the sign), and from the fourth on it is the difference from the number two before.
"""

from collections.abc import Sequence

import numpy as np

_DIGITS = 7  # of a number: 35 bits, more than any image's pixels
_MOST_PIXELS = 1 << 32  # pycocotools counts in 32 bits


def check_counts(counts: Sequence[int], pixels: int) -> str | None:
    """What is wrong with plain counts of a mask of so many pixels, if anything."""
    if not set(map(type, counts)) <= {int}:
        return "the counts are not all integers"
    if counts and min(counts) < 0:
        return f"a count is {min(counts)}"
    total = sum(counts)
    if total >= _MOST_PIXELS:
        return f"the counts fill {total} pixels, more than an RLE can have"
    return None if total == pixels else f"the counts fill {total} of {pixels} pixels"


def check_text(text: str, pixels: int) -> str | None:
    """What is wrong with compressed counts of a mask of so many pixels, if anything."""
    if not text:
        return "the text is empty"
    codes = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int64) - 48
    if codes.min() < 0 or codes.max() > 63:
        return "the text has characters that no RLE has"
    ends = np.flatnonzero(codes < 32)  # the last digit of each number
    if not ends.size or ends[-1] != codes.size - 1:
        return "the text ends within a number"
    digits = np.diff(ends, prepend=-1)
    if digits.max() > _DIGITS:
        return "a number of the text is longer than any image"
    starts = ends - digits + 1
    place = np.arange(codes.size) - np.repeat(starts, digits)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= ((codes[ends] & 16) != 0) * (1 << (5 * digits))
    # From differences to counts: sums over every second number, the very first one apart.
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return "a count is negative" if values.min() < 0 else check_counts([int(values.sum())], pixels)

"""What can be wrong with a COCO data set, and how it is told.

A problem names the file, the entry, the kind and what was found there. Its kind decides what a run
does: an *error* stops it (or, with ``--on-bad-data skip``, the entry is left out), a *warning* is
only shown. Errors of a file as a whole stop a run even then.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..text import printable

__all__ = [
    "KINDS",
    "OF_KEYPOINTS",
    "OF_MASKS",
    "UNUSABLE",
    "WARNINGS",
    "Problem",
    "count_kinds",
    "report",
    "shown",
]

KINDS: dict[str, str] = {
    # The file as a whole.
    "not-json": "the file is no JSON text in UTF-8",
    "not-an-object": "the file must hold an object with images, annotations and categories",
    "missing-section": "the file lacks 'images', 'annotations' or 'categories'",
    "bad-section": "a section of the file is no list",
    "empty-section": "the file has no usable image or category",
    "different-category": "two files name another category under one id, or only one has it",
    # Entries and their ids.
    "bad-image": "an entry of 'images' is no object",
    "bad-annotation": "an entry of 'annotations' is no object",
    "bad-category": "an entry of 'categories' is no object",
    "image-lacks-key": "an image needs id, file_name, height and width",
    "annotation-lacks-key": "an annotation needs id, image_id, category_id and bbox",
    "category-lacks-key": "a category needs id and name",
    "bad-image-id": "an id must be an integer from 0 to 2^63 - 1",
    "bad-annotation-id": "an id must be an integer from 0 to 2^63 - 1",
    "bad-category-id": "an id must be an integer from 0 to 2^63 - 1",
    "duplicate-image-id": "several images share one id: nobody knows whose the annotations are",
    "duplicate-annotation-id": "an earlier annotation has this id",
    "duplicate-category-id": "an earlier category has this id",
    "unknown-image": "the annotation's image_id is no image of the file",
    "unknown-category": "the annotation's category_id is no category of the file",
    # Categories.
    "bad-category-name": "a name must be a text, and not empty",
    "bad-keypoint-names": "a category's 'keypoints' must be a list of texts",
    "duplicate-category-name": "an earlier category has this name: only the ids tell them apart",
    "category-gap": "no category has these ids (the first and the last): legal, they are mapped",
    "empty-class": "no annotation is of this category",
    # Images.
    "bad-file-name": "file_name must be a text, and not empty",
    "bad-image-size": "height and width must be integers from 1 to 2^31 - 1",
    "duplicate-file-name": "an earlier image has this file",
    "missing-image": "the image file does not exist",
    "empty-image": "the image file has no bytes",
    "not-an-image": "the file is in no image format that Pillow reads",
    "truncated-image": "the image file ends before the picture does",
    "unreadable-image": "the image file cannot be read",
    "size-mismatch": "height and width are not those of the picture as it is shown (after EXIF)",
    "same-picture": "a picture of the training data is in the validation data too",
    "same-set": "training and validation data are the same: the metrics tell what was memorised",
    # Boxes.
    "bad-box": "bbox must be four finite numbers: x, y, width, height",
    "degenerate-box": "the box has no width or no height",
    "box-outside": "the box reaches more than 2 pixels out of the image",
    "flat-object": "box and outline agree that the object has no extent: it is not trained on",
    "missing-area": "COCO's metrics need 'area': a run takes the box's",
    "bad-area": "area must be a finite number of at least 0",
    "missing-iscrowd": "COCO's metrics need 'iscrowd': a run takes 0",
    "bad-iscrowd": "iscrowd must be 0 or 1",
    "ignored-object": "'ignore' must be 0 or absent: Detectron2 has no such objects",
    "zero-annotation-id": "COCO's metrics take id 0 for 'not found': number annotations from 1",
    # Masks.
    "missing-mask": "other annotations of the file have a segmentation, this one does not",
    "bad-segmentation": "segmentation must be a list of polygons, or an object in RLE",
    "bad-polygon": "a polygon must be a list of finite numbers: x1, y1, x2, y2, …",
    "short-polygon": "a polygon must have at least 6 numbers, which is 3 points",
    "odd-polygon": "a polygon must have an even number of numbers",
    "polygon-outside": "a polygon reaches more than 2 pixels out of the image",
    "rle-size": "the size of an RLE must be the image's [height, width]",
    "bad-rle": "the counts of an RLE must be whole runs of pixels that fill its size",
    # Keypoints.
    "missing-keypoints": "the category has keypoints; the object needs keypoints, num_keypoints",
    "bad-keypoints": "keypoints must be a list of finite numbers: x1, y1, v1, …",
    "keypoints-length": "keypoints must be three values for each name of the category",
    "keypoint-visibility": "a keypoint's visibility must be 0, 1 or 2",
    "num-keypoints": "num_keypoints must be the number of keypoints with visibility 1 or 2",
}
"""What each kind means."""

WARNINGS = frozenset(
    "duplicate-category-name category-gap empty-class same-set flat-object missing-area "
    "missing-iscrowd zero-annotation-id".split()
)
"""Kinds that neither stop a run nor are left out of it."""

UNUSABLE = frozenset(
    "not-json not-an-object missing-section bad-section empty-section different-category".split()
)
"""Kinds of errors that leaving out entries does not mend."""

OF_MASKS = frozenset({"missing-mask"})
"""Kinds of errors only where masks are learned."""

OF_KEYPOINTS = frozenset({"missing-keypoints"})
"""Kinds of errors only where keypoints are learned."""

_SHOWN = 8  # of a list's values
_SHOWN_TEXT = 200  # characters


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Attributes:
        file: the JSON file, or the image file that is concerned.
        id: of the image, annotation or category; where it has none that could be named, its place,
            such as ``"annotations[5]"``; None for the file as a whole.
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
        return "warning" if self.kind in WARNINGS else "error"

    def as_dict(self) -> dict:
        """For JSON: file, id, kind, value and severity."""
        return {
            **{key: getattr(self, key) for key in ("file", "id", "kind", "value")},
            "severity": self.severity,
        }


def shown(value: object, levels: int = 6) -> object:
    """``value`` for a reader: long lists and texts cut, NaN and infinity (no JSON) as texts.

    Lists in lists end after so many ``levels``.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (str, int, float, type(None))):
        if isinstance(value, str) and len(value) > _SHOWN_TEXT:
            return value[:_SHOWN_TEXT] + "…"
        if type(value) is int and abs(value) >= 1 << 256:  # the text of a longer one is refused
            return "an integer of more than 256 bits"
        return value
    if not levels:
        return "…"
    if isinstance(value, (list, tuple)):
        more = [f"… {len(value) - _SHOWN} more"] if len(value) > _SHOWN else []
        return [shown(v, levels - 1) for v in value[:_SHOWN]] + more
    return {str(key): shown(v, levels - 1) for key, v in list(value.items())[:_SHOWN]}


def count_kinds(problems: Iterable[Problem]) -> dict[str, int]:
    """How many problems there are of each kind, in the order of KINDS."""
    counts = Counter(problem.kind for problem in problems)
    return {kind: counts[kind] for kind in KINDS if kind in counts}


def report(problems: Sequence[Problem], limit: int = 20) -> str:
    """Problems as lines: how many of each kind and what it means, then the first ones.

    ``limit`` is the number of those; every kind shows one before a kind shows its second.
    """
    width = max((len(problem.kind) for problem in problems), default=0)
    lines = [
        f"  {count:6d} {kind:{width}}  {KINDS[kind]}"
        for kind, count in count_kinds(problems).items()
    ]
    turns: Counter[str] = Counter()
    ranked = []
    for place, problem in enumerate(problems):
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
    singular = {"images": "image", "annotations": "annotation", "categories": "category"}
    return f"{singular.get(section, 'id')} {problem.id}"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(v)}" for key, v in value.items())
    return str(value)

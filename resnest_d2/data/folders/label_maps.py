"""Folders of images and of label maps for semantic segmentation: what is wrong with them.

A label map is an image with one channel, in grey or with a palette, whose values are class numbers
from 0. An image and its label map have the same path below their folders, but for the extension.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...files import walk_once
from ..check.image_files import in_threads, look_at
from ..check.problems import Problem, errors, report
from ..image_reader import SUFFIXES, ImageError, has_image_name, read_labels


@dataclass(frozen=True)
class LabelMaps:
    """Two folders of files that belong together.

    Attributes:
        pairs: paths of image and label map below their folders, without those that have errors.
        sizes: (width, height) of each pair's image, pixels.
        pixels: number of pixels of each class, and of those that are ignored under None.
        images: number of images that have each class.
        problems: errors, each of one image, and warnings.
    """

    image_root: str
    label_root: str
    pairs: list[tuple[str, str]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    pixels: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    @property
    def image_files(self) -> list[str]:
        return [os.path.join(self.image_root, image) for image, _ in self.pairs]

    def leave_out(self, files: Collection[str]) -> None:
        """Take the pairs of some of :attr:`image_files` out; their pixels stay counted."""
        kept = [file not in files for file in self.image_files]
        self.pairs[:] = itertools.compress(self.pairs, kept)
        self.sizes[:] = itertools.compress(self.sizes, kept)


def check_label_maps(
    image_root: str, label_root: str, num_classes: int, ignore_value: int = 255
) -> LabelMaps:
    """Read all label maps and look at all images.

    Args:
        num_classes: label maps have the values 0 to ``num_classes`` - 1 and ``ignore_value``.

    Raises:
        FileNotFoundError: a folder does not exist, or has no image.
        ValueError: there are too many classes, or ``ignore_value`` is one of them or above 255.
    """
    if not num_classes <= ignore_value <= 255:
        raise ValueError(
            "there must be at most 255 classes, and MODEL.SEM_SEG_HEAD.IGNORE_VALUE must be no "
            f"class number and at most 255: got {num_classes} classes and {ignore_value}"
        )
    images, labels = (_files(root) for root in (image_root, label_root))
    found = LabelMaps(image_root, label_root)

    def add(kind: str, path: str, value: object) -> None:
        found.problems.append(Problem(path, None, kind, value))

    both = [name for name in images if name in labels]
    missing = [name for name in images if name not in labels]
    hint = _similar(missing[0], labels) if missing else ""  # names differ by one rule, if at all
    for name in missing:
        value = f"expected {name} with an extension of images{hint}"
        add("missing-label", os.path.join(image_root, images[name]), value)
    for name, path in labels.items():
        if name not in images:
            add("surplus-label", os.path.join(label_root, path), "no image of this name")
    looked = look_at(os.path.join(image_root, images[name]) for name in both)
    label_files = [os.path.join(label_root, labels[name]) for name in both]
    read = in_threads(_count_values, label_files, "reading label maps")
    for name, (image_file, image), label_file, label in zip(
        both, looked, label_files, read, strict=True
    ):
        before = len(found.problems)
        if image.kind:
            add(image.kind, image_file, image.value)
        if isinstance(label, ImageError):
            colours = label.reason.startswith("its channels differ")
            add("label-colours" if colours else "unreadable-label", label_file, label.reason)
            continue
        size, counts = label
        if not image.kind and size != image.size:
            add("label-size", label_file, {"label": list(size), "image": list(image.size)})
        ignored = counts.pop(ignore_value, 0)
        outside = sorted(value for value in counts if not 0 <= value < num_classes)
        if outside:
            value = {"values": outside[:8], "classes": f"0 to {num_classes - 1}"}
            add("label-value", label_file, {**value, "ignored": ignore_value})
        elif not counts:
            add("ignored-label", label_file, f"all {ignored} pixels are {ignore_value}")
        if not errors(found.problems[before:]):
            found.pairs.append((images[name], labels[name]))
            found.sizes.append(size)
            found.pixels.update(counts)
            found.images.update(counts.keys())
            found.pixels[None] += ignored
    if found.pairs:
        for number in range(num_classes):
            if not found.pixels[number]:
                add("empty-label-class", label_root, f"class {number}")
    return found


def usable_label_maps(
    image_root: str,
    label_root: str,
    num_classes: int,
    ignore_value: int = 255,
    *,
    on_bad_data: str = "refuse",
) -> LabelMaps:
    """:func:`check_label_maps`, refusing errors.

    Args:
        on_bad_data: ``"skip"`` leaves out images with errors instead; nothing can be repaired.

    Raises:
        FileNotFoundError: a folder does not exist, or has no image.
        ValueError: with all that is refused; or no image is left.
    """
    found = check_label_maps(image_root, label_root, num_classes, ignore_value)
    wrong = errors(found.problems)
    if wrong and (on_bad_data != "skip" or not found.pairs):
        raise ValueError(f"{label_root} and {image_root}:\n{report(wrong)}")
    if not found.pairs:
        raise ValueError(f"no image of {image_root} has a label map in {label_root}")
    return found


def _files(root: str) -> dict[str, str]:
    """Image files of a folder and its sub-folders, by their path without extension."""
    if not os.path.isdir(root):
        raise FileNotFoundError(f"the folder {root} does not exist")
    paths = sorted(
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in walk_once(root)
        for name in names
        if has_image_name(name)
    )
    if not paths:
        raise FileNotFoundError(f"the folder {root} has no image ({', '.join(SUFFIXES)})")
    found: dict[str, str] = {}
    for path in paths:
        name = os.path.splitext(path)[0]
        if name in found:
            raise ValueError(
                f"{root}: {found[name]} and {path} differ only in their extensions, and a label "
                "map belongs to one image: rename one of them"
            )
        found[name] = path
    return found


def _similar(name: str, labels: Iterable[str]) -> str:
    """The end of a message, with a label map whose name has that of an image in it."""
    base = os.path.basename(name)
    near = next((label for label in labels if base in label), None)
    return f"; for {name} there is {near}" if near else ""


def _count_values(path: str) -> tuple[tuple[int, int], dict[int, int]] | ImageError:
    """(width, height) of a label map, and how many pixels have each value."""
    try:
        labels = read_labels(path)
    except ImageError as error:
        return error
    values, counts = np.unique(labels, return_counts=True)
    return labels.shape[::-1], dict(zip(values.tolist(), counts.tolist(), strict=True))


def read_class_names(path: str | os.PathLike) -> list[str]:
    """Names of classes by number: a text file with one name per line, or a JSON file.

    JSON is a list of names, or an object whose ``"classes"`` is one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or a name is there twice.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}, which should name the classes")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    names = [line.strip() for line in text.rstrip().splitlines()]
    if text.lstrip().startswith(("{", "[")):
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} begins as JSON and is none: {error}") from None
        names = content.get("classes") if isinstance(content, dict) else content
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f'{path} must hold a list of names, or one under "classes"')
        names = [name.strip() for name in names]
    if "" in names:
        raise ValueError(f"{path}: name {names.index('') + 1} is empty")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if not names or twice:
        raise ValueError(
            f"{path} must name each class once: "
            + (f"{', '.join(twice[:5])} is there twice" if twice else "it names none")
        )
    return names

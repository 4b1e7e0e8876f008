"""Folders of images for classification: what is wrong with them.

Each class has a folder, in torchvision's layout: ``ROOT/CLASS/…/IMAGE``. Classes are numbered in
the order of their folders' names.
"""

import itertools
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...files import walk_once
from ..check.image_files import look_at
from ..check.problems import Problem, errors, report
from ..image_reader import SUFFIXES, has_image_name


@dataclass(frozen=True)
class ClassFolders:
    """A folder with a folder of images for each class.

    Attributes:
        class_names: by class number.
        images: path below ``image_root`` and class number of each image without an error.
        sizes: (width, height) of each of them, pixels.
        problems: errors, of an image or a folder, and warnings.
    """

    image_root: str
    class_names: list[str]
    images: list[tuple[str, int]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def image_files(self) -> list[str]:
        return [os.path.join(self.image_root, path) for path, _ in self.images]

    def leave_out(self, files: Collection[str]) -> None:
        """Take some of :attr:`image_files` out."""
        kept = [file not in files for file in self.image_files]
        self.images[:] = itertools.compress(self.images, kept)
        self.sizes[:] = itertools.compress(self.sizes, kept)


def check_class_folders(
    root: str, class_names: Sequence[str] | None = None, names: Mapping[str, str] | None = None
) -> ClassFolders:
    """Look at all images below the folders of the classes.

    Args:
        class_names: of the training data or of a model; None takes those of the folders.
        names: names of classes by the names of their folders, where these differ.

    Raises:
        FileNotFoundError: ``root`` does not exist, or has no folder.
        ValueError: two folders have the same class name, or ``names`` lacks a folder.
    """
    if not os.path.isdir(root):
        raise FileNotFoundError(f"the folder {root} does not exist")
    entries = sorted(entry for entry in os.listdir(root) if not entry.startswith("."))
    folders = [entry for entry in entries if os.path.isdir(os.path.join(root, entry))]
    if not folders:
        raise FileNotFoundError(
            f"{root} has no folders: each class needs one, with its images ({root}/CLASS/IMAGE)"
        )
    if {"train", "val"} <= {folder.lower() for folder in folders}:
        raise ValueError(
            f"{root} has the folders train and val: give the one with the folders of the classes"
        )
    by_name: dict[str, str] = {}
    for folder in folders:
        if names is not None and folder not in names:
            raise ValueError(f"the file of --classes has no name for the folder {root}/{folder}")
        # Bytes of a name that are no UTF-8 could not be written into a log.
        readable = folder.encode("utf-8", "backslashreplace").decode()
        name = readable if names is None else names[folder]
        if name in by_name:
            raise ValueError(
                f"the folders {by_name[name]} and {folder} of {root} are both {name!r}"
            )
        by_name[name] = folder

    found = ClassFolders(root, list(by_name) if class_names is None else list(class_names))

    def add(kind: str, path: str, value: object) -> None:
        found.problems.append(Problem(os.path.join(root, path), None, kind, value))

    for entry in filter(has_image_name, entries):
        if not os.path.isdir(os.path.join(root, entry)):
            add("stray-image", entry, "it has no class")
    entered = {os.path.realpath(root), *(os.path.realpath(os.path.join(root, f)) for f in folders)}
    files = {name: _images_below(root, folder, entered) for name, folder in by_name.items()}
    if class_names is None:
        for name, folder in by_name.items():
            if not files[name]:
                add("empty-class-folder", folder, f"no file ends in {', '.join(SUFFIXES)}")
                found.class_names.remove(name)
    numbers = {name: number for number, name in enumerate(found.class_names)}
    for name, folder in by_name.items():
        if class_names is not None and files[name] and name not in numbers:
            found_images = f"class {name!r}, {len(files[name])} images"
            add("new-class", folder, f"{found_images} (--classes FILE gives folders other names)")
    for name in found.class_names:
        if not files.get(name):
            add("missing-class", "", f"class {name!r}")
    labelled = [(path, number) for name, number in numbers.items() for path in files.get(name, ())]
    looked = look_at(os.path.join(root, path) for path, _ in labelled)
    for (path, number), (_, image) in zip(labelled, looked, strict=True):
        if image.kind:
            add(image.kind, path, image.value)
        else:
            found.images.append((path, number))
            found.sizes.append(image.size)
    return found


def usable_class_folders(
    root: str,
    names: Mapping[str, str] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    on_bad_data: str = "refuse",
) -> ClassFolders:
    """:func:`check_class_folders`, refusing errors.

    Args:
        on_bad_data: ``"skip"`` leaves out what has errors instead; nothing can be repaired.

    Raises:
        FileNotFoundError, ValueError: also with all that is refused, or if no image is left.
    """
    found = check_class_folders(root, class_names, names)
    wrong = errors(found.problems)
    if wrong and (on_bad_data != "skip" or not found.images):
        raise ValueError(f"{root}:\n{report(wrong)}")
    return found


def _images_below(root: str, folder: str, entered: set[str]) -> list[str]:
    """Paths below ``root`` of the images of a folder and its sub-folders, links followed.

    Args:
        entered: real paths of folders whose images have a class, this folder among them.
    """
    top = os.path.join(root, folder)
    entered.discard(os.path.realpath(top))
    return sorted(
        os.path.relpath(os.path.join(place, name), root)
        for place, _, names in walk_once(top, entered)
        for name in names
        if has_image_name(name)
    )


def read_folder_names(path: str | os.PathLike) -> dict[str, str]:
    """Names of classes by the names of their folders: a JSON object.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and name.strip() for name in content.values()
    ):
        raise ValueError(f'{path} must be a JSON object of names by folder: {{"FOLDER": "NAME"}}')
    return content

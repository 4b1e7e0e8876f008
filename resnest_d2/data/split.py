"""One COCO file split by image into a training and a validation file.

Images that hold the same bytes stay together. Rare classes are placed first, one image each for
validation: a random share of the images would leave many of them on one side only.
"""

import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..files import write_text
from .check.data_sets import require_paths
from .check.image_files import file_digests
from .check.normalise import without_given_ids
from .formats.coco import read_sound_coco, require_images


@dataclass(frozen=True)
class Split:
    """The two files, and the number of images in each.

    Attributes:
        one_sided: names of classes that only one of the files has annotations of.
    """

    train: str
    val: str
    train_images: int
    val_images: int
    one_sided: tuple[str, ...]


def split_coco(
    json_file: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    val: float = 0.2,
    seed: int = 0,
    image_root: str | os.PathLike | None = None,
    on_bad_data: str = "refuse",
) -> Split:
    """Write ``train.json`` and ``val.json``: each image, with its annotations, is in one of them.

    Ids, categories and everything else of the file are kept. Every class with enough images is in
    both files, as far as the share allows it.

    Args:
        folder: where the two files go; made where it is missing.
        val: share of the images for validation, above 0 and below 1.
        seed: another one gives another split.
        image_root: with it, images whose files hold the same bytes go to one side.
        on_bad_data: see :func:`.coco.read_sound_coco`.

    Raises:
        FileExistsError: one of the two files exists.
        FileNotFoundError: the file, or images in ``image_root``, are missing.
        ValueError: the file is not sound or has a single image, or ``val`` is invalid.
    """
    if not 0 < val < 1:
        raise ValueError(f"the share for validation must be above 0 and below 1, got {val}")
    paths = [os.path.join(os.fspath(folder), f"{part}.json") for part in ("train", "val")]
    if found := [path for path in paths if os.path.exists(path)]:
        raise FileExistsError(f"{' and '.join(found)}: there already, and not overwritten")
    data = read_sound_coco(json_file, on_bad_data=on_bad_data, image_root=image_root)
    data = without_given_ids(data)
    groups = _groups(data["images"], os.fspath(json_file), image_root)
    if len(groups) < 2:
        raise ValueError(f"{os.fspath(json_file)} has one image: nothing to split")
    classes = defaultdict(set)  # category ids by image id
    for annotation in data["annotations"]:
        classes[annotation["image_id"]].add(annotation["category_id"])
    of_group = [set().union(*(classes[i] for i in group)) for group in groups]
    chosen = _choose([len(group) for group in groups], of_group, val, seed)

    sides = (set(), set())  # image ids of train and val
    for place, group in enumerate(groups):
        sides[place in chosen].update(group)
    for path, ids in zip(paths, sides, strict=True):
        content = {
            **data,
            "images": [image for image in data["images"] if image["id"] in ids],
            "annotations": [a for a in data["annotations"] if a["image_id"] in ids],
        }
        write_text(path, json.dumps(content))
    present = [set().union(*(classes[i] for i in ids)) for ids in sides]
    names = {category["id"]: category["name"] for category in data["categories"]}
    one_sided = tuple(names[i] for i in sorted(present[0] ^ present[1]))
    return Split(*paths, *map(len, sides), one_sided)


def _groups(
    images: Sequence[dict], json_file: str, image_root: str | os.PathLike | None
) -> list[list[int]]:
    """Image ids in groups that must stay together: with ``image_root``, of equal files."""
    names = [image["file_name"] for image in images]
    if image_root is None:
        keys = range(len(images))  # entries of one file were merged when it was read
    else:
        root = os.fspath(image_root)
        require_paths(json_file, root)
        require_images(names, json_file, root)
        keys = file_digests([os.path.join(root, name) for name in names])
    groups = defaultdict(list)
    for key, image in zip(keys, images, strict=True):
        groups[key].append(image["id"])
    return list(groups.values())


def _choose(sizes: list[int], classes: list[set[int]], val: float, seed: int) -> set[int]:
    """The places of the groups for validation, by their numbers of images and category ids."""
    order = list(range(len(sizes)))
    random.Random(seed).shuffle(order)
    total = sum(sizes)
    target = min(max(round(val * total), 1), total - 1)
    left = Counter(c for group in classes for c in group)  # groups of a class in training
    repeated = {c for c, count in left.items() if count > 1}
    chosen: set[int] = set()
    covered: set[int] = set()
    images = 0

    def fits(place: int) -> bool:
        """Whether the share has room for a group, and training keeps each of its classes."""
        if place in chosen or images + sizes[place] > target:
            return False
        return all(left[c] > 1 for c in classes[place])

    def take(place: int) -> None:
        nonlocal images
        images += sizes[place]
        chosen.add(place)
        covered.update(classes[place])
        left.subtract(classes[place])

    by_class = defaultdict(list)
    for place in order:
        for c in classes[place]:
            by_class[c].append(place)
    for c in sorted(repeated, key=lambda c: (len(by_class[c]), c)):
        candidates = [place for place in by_class[c] if c not in covered and fits(place)]
        if candidates:
            take(max(candidates, key=lambda place: len((classes[place] & repeated) - covered)))
    for place in order:
        if fits(place):
            take(place)
    if not chosen:  # every group is the only one of a class, or larger than the share
        take(min(order, key=lambda place: sizes[place]))
    return chosen

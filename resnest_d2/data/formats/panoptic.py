"""COCO panoptic data sets in the form that Panoptic FPN learns from: things and stuff apart.

A panoptic annotation is an image whose colours number segments (id = R + 256 G + 256² B, 0 where
nothing is labelled) and a JSON file that gives each segment its category. Panoptic FPN (arXiv
1901.02446) learns things from a COCO instance file and the rest from semantic masks of Detectron2's
contiguous stuff classes: class 0 is every thing, 1, 2, … are the stuff categories by ascending id,
and 255 is unlabelled. Detectron2 makes those masks by a script that needs panopticapi;
:func:`write_stuff_masks` writes the same ones with numpy and Pillow.
"""

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from iopath.common.file_io import get_cache_dir
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from ...files import make_folder
from ..check.data_sets import different_categories, file_state, require_paths
from ..check.problems import counted
from ..check.structure import read_sections
from ..image_reader import open_image
from .coco import (
    few,
    is_registered,
    name_of_files,
    raise_errors,
    require_images,
    usable_copy,
)

logger = logging.getLogger(__name__)

_THINGS = "things"  # Detectron2's name for stuff class 0
_IGNORE = 255
_REQUIRED = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id", "file_name", "segments_info"),
    "categories": ("id", "name", "isthing"),
}


@dataclass(frozen=True)
class _Panoptic:
    """A checked panoptic file: names by category id, ascending, and the annotated images."""

    json_file: str
    root: str
    things: dict[int, str]
    stuff: dict[int, str]
    annotations: list[dict]
    sizes: dict[int, tuple[int, int]]  # (width, height) in pixels by image id

    @property
    def stuff_classes(self) -> dict[int, int]:
        """Detectron2's contiguous stuff class of each stuff category."""
        return {category: number for number, category in enumerate(self.stuff, start=1)}


def register_coco_panoptic(
    panoptic_json: str | os.PathLike,
    panoptic_root: str | os.PathLike,
    instances_json: str | os.PathLike,
    image_root: str | os.PathLike,
    *,
    name: str | None = None,
    sem_seg_root: str | os.PathLike | None = None,
) -> str:
    """Check a COCO panoptic data set and register it, "separated", with Detectron2.

    Its classes go into ``MODEL.ROI_HEADS.NUM_CLASSES`` (things) and
    ``MODEL.SEM_SEG_HEAD.NUM_CLASSES`` (stuff categories and one more, for all things). Instance
    masks in RLE need ``INPUT.MASK_FORMAT: bitmask``. Call it at the top level of a script, which
    every process runs: each one has its own catalog.

    Args:
        panoptic_json, panoptic_root: the panoptic annotations, and the folder of their images.
        instances_json, image_root: the instances of the same images in COCO's format (their
            categories are the things), and the folder that image names start from.
        name: by default one that is computed from these paths, the same in every process.
        sem_seg_root: folder for the semantic masks (see :func:`write_stuff_masks`); by default
            one in Detectron2's cache folder, another one for every version of the file.

    Returns:
        The name, for ``DATASETS.TRAIN`` or ``DATASETS.TEST``.

    Raises:
        FileNotFoundError: a file, a folder or images in it are missing.
        ValueError: the files are not in COCO's formats, contradict each other, or the name is
            taken.
    """
    image_root = os.fspath(image_root)
    instances_json, summary = usable_copy(os.fspath(instances_json), image_root)
    panoptic = _check_panoptic(os.fspath(panoptic_json), os.fspath(panoptic_root))
    jsons = (panoptic.json_file, instances_json)
    instances = dict(zip(summary.category_ids, summary.class_names, strict=True))
    if different := different_categories(panoptic.things, instances, jsons):
        texts = [f"id {number}: {text}" for number, text in different.items()]
        raise ValueError(f"the categories of things differ: {few(texts)}")
    mask_names = {a["image_id"]: a["file_name"] for a in panoptic.annotations}
    if single := sorted(summary.image_ids ^ mask_names.keys()):
        raise ValueError(
            f"{counted(len(single), 'image')} in only one of {' and '.join(jsons)}: {few(single)}"
        )

    files = {
        "panoptic_json": panoptic.json_file,
        "panoptic_root": panoptic.root,
        "json_file": instances_json,
        "image_root": image_root,
    }
    name = name or name_of_files(*files.values())
    state = [file_state(file) for file in (panoptic.json_file, instances_json)]
    if is_registered(name, files, state):
        return name
    if sem_seg_root is None:
        version = repr((*map(os.path.realpath, files.values()), *file_state(panoptic.json_file)))
        digest = hashlib.sha256(version.encode()).hexdigest()[:16]
        sem_seg_root = os.path.join(get_cache_dir(), "resnest_d2", f"stuff-{digest}")
    sem_seg_root = os.fspath(sem_seg_root)
    _write_masks(panoptic, sem_seg_root)

    def load() -> list[dict]:
        records = load_coco_json(instances_json, image_root, name)
        for record in records:
            mask = mask_names[record["image_id"]]
            record["sem_seg_file_name"] = os.path.join(sem_seg_root, mask)
        return records

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        **files,
        sem_seg_root=sem_seg_root,
        evaluator_type="coco_panoptic_seg",
        ignore_label=_IGNORE,
        **summary.metadata,
        stuff_classes=[_THINGS, *panoptic.stuff.values()],
        # Detectron2's category 0 stands for all things, as class 0 does.
        stuff_dataset_id_to_contiguous_id={**panoptic.stuff_classes, 0: 0},
    )
    return name


def write_stuff_masks(
    panoptic_json: str | os.PathLike,
    panoptic_root: str | os.PathLike,
    sem_seg_root: str | os.PathLike,
) -> None:
    """Write the semantic masks of a panoptic data set: Detectron2's ``panoptic_stuff_…`` folder.

    Each is an 8-bit PNG with the name of its annotation: 0 on things, 1, 2, … on stuff, 255
    elsewhere. A folder that exists and has all of them is left as it is.

    Raises:
        FileNotFoundError: the file, the folder or images in it are missing.
        ValueError: an invalid file or image, or ``sem_seg_root`` lacks some of the masks.
    """
    panoptic = _check_panoptic(os.fspath(panoptic_json), os.fspath(panoptic_root))
    _write_masks(panoptic, os.fspath(sem_seg_root))


def _write_masks(panoptic: _Panoptic, sem_seg_root: str) -> None:
    names = {annotation["file_name"] for annotation in panoptic.annotations}
    if os.path.isdir(sem_seg_root):
        if missing := sorted(names.difference(os.listdir(sem_seg_root))):
            raise ValueError(
                f"{sem_seg_root} lacks {len(missing)} of the {len(names)} masks of "
                f"{panoptic.json_file} ({few(missing)}): remove it, or name another folder"
            )
        return

    def write_all(folder: str) -> None:
        os.makedirs(folder)

        def write(annotation: dict) -> None:
            mask = Image.fromarray(_stuff_mask(panoptic, annotation))
            mask.save(os.path.join(folder, annotation["file_name"]))

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow and zlib release the GIL
            list(pool.map(write, panoptic.annotations))  # raises what was raised

    logger.info(f"Writing {len(names)} semantic masks into {sem_seg_root}")
    make_folder(sem_seg_root, write_all)


def _stuff_mask(panoptic: _Panoptic, annotation: dict) -> np.ndarray:
    """The semantic mask of one image, (H, W) uint8."""
    path = os.path.join(panoptic.root, annotation["file_name"])
    with open_image(path) as image:
        mode, size, colours = image.mode, image.size, np.asarray(image)
    expected = panoptic.sizes[annotation["image_id"]]
    if mode != "RGB" or size != expected:
        raise ValueError(
            f"{path} must be RGB of {expected[0]} x {expected[1]} pixels, as {panoptic.json_file} "
            f"says of image {annotation['image_id']}; got {mode} of {size[0]} x {size[1]}"
        )
    ids = colours.astype(np.int32) @ np.array([1, 256, 256**2], dtype=np.int32)  # (H, W)

    stuff_classes = panoptic.stuff_classes
    classes = {s["id"]: stuff_classes.get(s["category_id"], 0) for s in annotation["segments_info"]}
    classes[0] = _IGNORE
    drawn = np.unique(ids)
    if unknown := sorted(set(drawn.tolist()).difference(classes)):
        raise ValueError(
            f"{path} has segments that {panoptic.json_file} does not list: {few(unknown)}"
        )
    if absent := sorted(classes.keys() - set(drawn.tolist()) - {0}):
        raise ValueError(f"{path} lacks segments that {panoptic.json_file} lists: {few(absent)}")
    values = np.array([classes[i] for i in drawn.tolist()], dtype=np.uint8)
    return values[np.searchsorted(drawn, ids)]


def _check_panoptic(json_file: str, root: str) -> _Panoptic:
    require_paths(json_file, root, "panoptic")
    structure = read_sections(json_file, _REQUIRED)
    raise_errors(json_file, structure.problems)
    images, annotations, categories = (structure.data[section] for section in _REQUIRED)

    names: dict[int, dict[int, str]] = {0: {}, 1: {}}  # stuff, things
    for category in sorted(categories, key=lambda category: category["id"]):
        number, thing = category["id"], category["isthing"]
        if thing not in (0, 1):
            raise ValueError(
                f"{json_file}: 'isthing' of category {number} must be 0 or 1, got {thing!r}"
            )
        names[thing][number] = category["name"]
    stuff, things = names.values()
    if len(stuff) >= _IGNORE:
        raise ValueError(
            f"{json_file} has {len(stuff)} stuff categories; 8-bit masks hold at most {_IGNORE - 1}"
        )

    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    seen = set()
    for annotation in annotations:
        image_id, name = annotation["image_id"], annotation["file_name"]
        where = f"{json_file}: the annotation of image {image_id}"
        if image_id not in sizes:
            raise ValueError(f"{where} names an image that is not in the file")
        if name != os.path.basename(name):
            raise ValueError(f"{where}: 'file_name' must have no folder, got {name!r}")
        if seen & {image_id, name}:
            raise ValueError(f"{where}: another annotation has this image or the file {name!r}")
        seen |= {image_id, name}
        _check_segments(annotation["segments_info"], where, stuff.keys() | things.keys())
    require_images([annotation["file_name"] for annotation in annotations], json_file, root)
    return _Panoptic(json_file, root, things, stuff, annotations, sizes)


def _check_segments(segments: list[dict], where: str, categories: set[int]) -> None:
    if not isinstance(segments, list) or not all(isinstance(s, dict) for s in segments):
        raise ValueError(f"{where}: 'segments_info' must be a list of objects")
    ids = set()
    for segment in segments:
        if missing := [key for key in ("id", "category_id") if key not in segment]:
            raise ValueError(f"{where}: a segment has no '{missing[0]}'")
        number, category = segment["id"], segment["category_id"]
        if not isinstance(number, int) or not 0 < number < 256**3 or number in ids:
            what = f"segment ids must be 1 to {256**3 - 1}, each once, got {number!r}"
            raise ValueError(f"{where}: {what}")
        ids.add(number)
        if category not in categories:
            what = f"segment {number} names category {category}, which is not in the file"
            raise ValueError(f"{where}: {what}")

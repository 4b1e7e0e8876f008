"""A contact sheet: images of a data set with their annotations, label maps or classes."""

import logging
import os
import random
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as mask_util

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data import register_coco
from ..data.folders.class_folders import usable_class_folders
from ..data.folders.label_maps import usable_label_maps
from ..data.image_reader import ImageError, load_image, read_image, read_labels
from ..data.intensity import BY_TYPE, Intensity
from ..progress import progress_bar
from ..text import printable
from .class_colors import blend_labels, class_legend
from .fonts import image_font
from .instances import draw_annotations

_CELL = 420  # pixels, largest width and height of an image
_CAPTION = 24  # pixels, below each
_GAP = 8  # pixels

logger = logging.getLogger(__name__)


def draw_sheet(
    data: tuple[str, str],
    *,
    num_images: int = 16,
    seed: int = 0,
    intensity: Intensity = BY_TYPE,
    on_bad_data: str = "refuse",
) -> np.ndarray:
    """Draw images of a data set with boxes, masks and class names.

    Images with annotations are preferred. An unreadable one is a grey field that says so.

    Args:
        data: (COCO json file, image folder).
        num_images: how many at most, drawn at random with ``seed``, in the order of their ids.
        intensity: the rule for images of more than 8 bits.
        on_bad_data: see :func:`resnest_d2.register_coco`.

    Returns:
        RGB, uint8, about square.

    Raises:
        FileNotFoundError, ValueError: as :func:`resnest_d2.register_coco`.
    """
    _check_number(num_images)
    name = register_coco(*data, on_bad_data=on_bad_data)
    class_names = MetadataCatalog.get(name).thing_classes
    records = DatasetCatalog.get(name)
    random.Random(seed).shuffle(records)
    records.sort(key=lambda record: not record["annotations"])
    records = sorted(records[:num_images], key=lambda record: record["image_id"])
    cells = []
    for record in progress_bar(records, desc="drawing"):
        number = len(record["annotations"])
        file = os.path.basename(record["file_name"])
        caption = f"{record['image_id']}: {file}, {number} object{'s' * (number != 1)}"
        cells.append((_draw_record(record, class_names, intensity), caption))
    return _arrange(cells)


def draw_label_sheet(
    data: tuple[str, str],
    class_names: Sequence[str],
    *,
    num_images: int = 16,
    seed: int = 0,
    ignore_value: int = 255,
    intensity: Intensity = BY_TYPE,
    on_bad_data: str = "refuse",
) -> np.ndarray:
    """Draw images with their label maps as colours, and a legend. Pixels of no class are dark.

    Args:
        data: (folder of label maps, image folder).
        class_names: by class number.
        num_images, seed, intensity: see :func:`draw_sheet`; in the order of the files' names.
        ignore_value, on_bad_data: see :func:`.usable_label_maps`.

    Returns:
        RGB, uint8.

    Raises:
        FileNotFoundError, ValueError: as :func:`.usable_label_maps`.
    """
    _check_number(num_images)
    label_root, image_root = data
    found = usable_label_maps(
        image_root, label_root, len(class_names), ignore_value, on_bad_data=on_bad_data
    )
    drawn = sorted(random.Random(seed).sample(found.pairs, min(num_images, len(found.pairs))))
    cells, present = [], set()
    for image_file, label_file in progress_bar(drawn, desc="drawing"):
        image = read_image(os.path.join(image_root, image_file), intensity).pixels
        labels = read_labels(os.path.join(label_root, label_file))
        blended, labels = blend_labels(image, labels, len(class_names), max_side=_CELL)
        numbers = set(np.unique(labels).tolist()) - {-1}
        present |= numbers
        cell = _fit(Image.fromarray(blended), Image.Resampling.NEAREST)
        cells.append((cell, f"{image_file}, {len(numbers)} class{'es' * (len(numbers) != 1)}"))
    sheet = _arrange(cells)
    return np.concatenate((sheet, class_legend(sorted(present), class_names, sheet.shape[1])))


def draw_class_sheet(
    root: str,
    names: Mapping[str, str] | None = None,
    *,
    num_images: int = 16,
    seed: int = 0,
    intensity: Intensity = BY_TYPE,
    on_bad_data: str = "refuse",
) -> np.ndarray:
    """Draw images of class folders with the names of their classes.

    Args:
        root, names, on_bad_data: see :func:`.usable_class_folders`.
        num_images, seed, intensity: see :func:`draw_sheet`; in the order of the classes.

    Returns:
        RGB, uint8.
    """
    _check_number(num_images)
    found = usable_class_folders(root, names, on_bad_data=on_bad_data)
    drawn = random.Random(seed).sample(found.images, min(num_images, len(found.images)))
    cells = []
    for path, number in progress_bar(sorted(drawn, key=lambda image: image[1]), desc="drawing"):
        image = Image.fromarray(read_image(os.path.join(root, path), intensity).pixels)
        caption = f"{found.class_names[number]}: {os.path.basename(path)}"
        cells.append((_fit(image, Image.Resampling.BICUBIC), caption))
    return _arrange(cells)


def _fit(image: Image.Image, resampling: Image.Resampling) -> Image.Image:
    """An image whose longer side is that of a cell."""
    scale = _CELL / max(image.size)
    return image.resize([max(1, round(scale * side)) for side in image.size], resampling)


def _check_number(num_images: int) -> None:
    if num_images < 1:
        raise ValueError(f"the number of images must be at least 1, got {num_images}")


def _arrange(cells: Sequence[tuple[Image.Image, str]]) -> np.ndarray:
    """Drawings and their captions on one page, about square."""
    columns = int(np.ceil(np.sqrt(len(cells))))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(drawn.height for drawn, _ in row) + _CAPTION + _GAP for row in rows]
    size = (columns * (_CELL + _GAP) + _GAP, sum(heights) + _GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (drawn, text) in enumerate(row):
            caption = printable(text)
            left = _GAP + column * (_CELL + _GAP)
            sheet.paste(drawn, (left, top))
            font = image_font(caption, 15)
            while font.getlength(caption) > _CELL:
                caption = f"{caption[:-2]}…"
            pen.text((left, top + drawn.height + 3), caption, fill="black", font=font)
        top += height
    return np.asarray(sheet)


def _draw_record(record: dict, class_names: list[str], intensity: Intensity) -> Image.Image:
    try:
        image, _ = load_image(record["file_name"], intensity)
        size = record.get("width", image.width), record.get("height", image.height)
        if image.size != size:
            reason = f"it has {image.size} pixels, and its data says {size}"
            raise ImageError(record["file_name"], reason)
    except (FileNotFoundError, ImageError) as error:
        logger.warning(error)
        field = Image.new("RGB", (_CELL, _CELL // 2), "#cccccc")
        ImageDraw.Draw(field).text(
            (10, 10), "cannot be read", fill="black", font=ImageFont.load_default(size=20)
        )
        return field
    by = max(1, max(size) // (2 * _CELL))
    annotations = [_reduced(annotation, by) for annotation in record["annotations"]]
    pixels = np.asarray(image.reduce(by))
    scale = _CELL / max(pixels.shape[:2])
    drawn = Image.fromarray(draw_annotations(pixels, annotations, class_names, scale=scale))
    drawn.thumbnail((_CELL, _CELL))  # scaling may have rounded up
    return drawn


def _reduced(annotation: dict, by: int) -> dict:
    """An annotation of an image that is smaller by a factor."""
    reduced = annotation | {"bbox": [value / by for value in annotation["bbox"]]}
    mask = annotation.get("segmentation")
    if by > 1 and isinstance(mask, dict):
        inside = mask_util.decode(mask)[::by, ::by]
        reduced["segmentation"] = mask_util.encode(np.asfortranarray(inside))
    elif isinstance(mask, list):
        reduced["segmentation"] = [[value / by for value in polygon] for polygon in mask]
    if keypoints := annotation.get("keypoints"):
        points = np.reshape(keypoints, (-1, 3)) / (by, by, 1)
        reduced["keypoints"] = points.flatten().tolist()
    return reduced

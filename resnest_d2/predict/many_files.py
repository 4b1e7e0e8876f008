"""Prediction of many files into one folder.

The next batch is read while the model runs. Batches are limited by number of files and by pixels,
and masks are encoded after each batch, so that memory does not grow with the number of files.
"""

import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from ..checkpoint.weight_files import file_sha256
from ..data.image_reader import DecodedImage, ImageError, count_pixels, read_image
from ..data.intensity import Intensity
from ..errors import check_choice
from ..evaluation.coco_evaluator import encode_masks
from ..files import writing
from ..progress import progress_bar, show_progress
from ..version import __version__
from .best_classes import best_classes, write_best_classes
from .journal import Journal
from .label_files import count_classes, write_class_table
from .predictor import Predictor
from .results import write_failed, write_results
from .sources import drawing_names, find_images

__all__ = ["PICTURE_FORMATS", "FilePredictions", "predict_files"]

PICTURE_FORMATS = ("png", "jpg", "none")

_THREADS = 4
_BATCH_PIXELS = 2**25  # of all files of a batch; a larger file is a batch of its own
_DRAWN_SIDE = 4096  # pixels: drawing takes some 100 bytes a pixel
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # see files.writing


@dataclass(frozen=True)
class FilePredictions:
    """What :func:`predict_files` did.

    Attributes:
        folder: of the results.
        predicted: number of files that this call predicted.
        earlier: number of its files that were done before.
        failed: reasons, by file name.
        notes: what was not used of a file that this call predicted, by file name.
        instances: number of instances in the folder; None for other tasks than detection.
    """

    folder: Path
    predicted: int
    earlier: int
    failed: dict[str, str]
    notes: dict[str, str]
    instances: int | None


def predict_files(
    predictor: Predictor,
    sources: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    batch_size: int = 4,
    picture_format: str = "png",
    progress: bool = False,
) -> FilePredictions:
    """Predict files, folders and patterns into a folder, or continue an earlier call.

    The folder then has

    - a drawing of each image, in the sub-folders of the sources, at most 4096 pixels a side,
    - ``predictions.json``: COCO results with boxes, scores and, by model, masks or keypoints,
    - ``images.json``: their images and categories, a COCO data set,
    - ``predictions.csv``: the boxes as a table,
    - ``failed.csv``: the files that this call could not read, with reasons, if there are any,
    - ``journal.jsonl``, see :mod:`.journal`.

    A model for semantic segmentation leaves, in place of COCO results, ``labels/NAME.png`` for each
    file NAME, whose values are class numbers, and in ``predictions.csv`` the area of each class. A
    classifier leaves only ``predictions.csv``, with the five most likely classes of each image.

    Category ids are the predictor's, else class number + 1; ``info`` in ``images.json`` says which.

    If an earlier call with the same settings ended in any way, only files that are missing, failed,
    new or changed are predicted. Results have the images of all calls.

    Args:
        sources: see :func:`.sources.find_images`.
        out: a new or an empty folder, or one with results of the same settings.
        batch_size: the largest number of files that go through the model together.
        picture_format: of the drawings, one of ``PICTURE_FORMATS``.
        progress: show a bar on a terminal's stderr after two seconds.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: invalid input; nothing was done.
        OSError: a result cannot be written. Finished images are kept.
    """
    check_choice("picture_format", picture_format, PICTURE_FORMATS)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    out = Path(out)
    files = find_images(sources, except_in=out)
    settings = {
        "checkpoint": file_sha256(predictor.checkpoint),
        **predictor.settings,
        "pictures": picture_format,
        "root": str(files.root),
    }
    known_ids = predictor.category_ids
    failed: dict[str, str] = {}
    notes: dict[str, str] = {}
    with Journal(out, settings) as journal:
        for path in out.rglob(".*.tmp"):  # left by a process that was killed while it wrote
            if _TEMPORARY.fullmatch(path.name):
                path.unlink()
        todo = [n for n in files.names if not journal.is_done(n, _stamp(files.root / n))]
        earlier = len(files.names) - len(todo)
        drawings: dict[str, str | None] = {}
        if picture_format != "none" and not predictor.classifies:
            drawings = drawing_names(files.names, picture_format, given=journal.drawings)
        with (
            show_progress(progress),
            progress_bar(total=len(files.names), initial=earlier, unit="image") as bar,
        ):
            batches = _batches(files.root, todo, batch_size)
            for batch in _read_ahead(files.root, batches, predictor.intensity):
                read = [item for item in batch if item.image is not None]
                failed |= {item.name: item.reason for item in batch if item.image is None}
                notes |= {item.name: item.image.note for item in read if item.image.note}
                found = predictor.batch([item.image.pixels for item in read], paste_masks=False)
                records = []
                for item, result in zip(read, found, strict=True):
                    drawing = drawings.get(item.name)
                    if drawing is not None:
                        _draw(item.image.pixels, result, predictor.class_names, out / drawing)
                    if predictor.classifies:
                        records.append({**_about(item, drawing), **best_classes(result)})
                    elif predictor.segments:
                        records.append(_save_labels(item, result, predictor, drawing, out))
                    else:
                        records.append(_record(item, result, drawing))
                journal.append(records)
                bar.update(len(batch))
        if predictor.classifies:
            instances = None
            write_best_classes(out, journal.records(), predictor.class_names)
        elif predictor.segments:
            instances = None
            write_class_table(out, journal.records(), predictor.class_names)
        else:
            instances = write_results(
                out,
                journal.records(),
                class_names=predictor.class_names,
                category_ids=known_ids or range(1, len(predictor.class_names) + 1),
                info={
                    "description": f"predictions by resnest_d2 {__version__}",
                    "category_ids": "of the training data" if known_ids else "class number + 1",
                    **settings,
                },
            )
        write_failed(out, failed)
    return FilePredictions(out, len(todo) - len(failed), earlier, failed, notes, instances)


class _Item(NamedTuple):
    """A file after reading: its image, or the reason why there is none."""

    name: str
    stamp: list[int] | None
    image: DecodedImage | None = None
    reason: str = ""


def _stamp(path: Path) -> list[int] | None:
    """Size and time of a file, to see whether it changed; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _batches(root: Path, names: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    pixels = 0
    for name in names:
        try:
            more = count_pixels(root / name)
        except (ImageError, FileNotFoundError):
            more = 0  # reading will fail too
        if batch and (len(batch) == size or pixels + more > _BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(name)
        pixels += more
    if batch:
        yield batch


def _read_ahead(
    root: Path, batches: Iterable[list[str]], intensity: Intensity
) -> Iterator[list[_Item]]:
    """Yield each batch while the next one is being read."""
    with ThreadPoolExecutor(_THREADS) as pool:
        ahead: list[Future] = []
        for batch in itertools.chain(batches, [[]]):
            reading = [pool.submit(_read, root, name, intensity) for name in batch]
            if ahead:
                yield [future.result() for future in ahead]
            ahead = reading


def _read(root: Path, name: str, intensity: Intensity) -> _Item:
    path = root / name
    stamp = _stamp(path)  # before reading: a file that changes meanwhile is predicted again
    try:
        return _Item(name, stamp, read_image(path, intensity))
    except ImageError as error:
        return _Item(name, stamp, reason=error.reason)
    except FileNotFoundError:
        reason = "there is no such file any more"
        if path.is_symlink():
            reason = f"it is a link to {os.readlink(path)}, which is not there"
        return _Item(name, stamp, reason=reason)


def _save_labels(
    item: _Item, labels: torch.Tensor, predictor: Predictor, drawing: str | None, out: Path
) -> dict[str, Any]:
    """Write a label map; returns a record for the journal."""
    from ..draw.class_colors import palette_image

    values, name = labels.numpy(), f"labels/{item.name}.png"
    _write_image(palette_image(values, len(predictor.class_names)), out / name)
    known = _about(item, drawing)
    return {**known, "label_map": name, "pixels": count_classes(values)}


def _record(item: _Item, instances: Instances, drawing: str | None) -> dict[str, Any]:
    """A record for the journal, with class numbers as category ids."""
    instances, rles = encode_masks(instances)
    with torch.inference_mode():  # keypoints are moved by half a pixel in place
        results = instances_to_coco_json(instances, item.name)
    for result, rle in zip(results, rles, strict=False):  # rles is empty without masks
        result["segmentation"] = rle
    return {**_about(item, drawing), "instances": results}


def _about(item: _Item, drawing: str | None) -> dict[str, Any]:
    """What every record of the journal has."""
    height, width = item.image.pixels.shape[:2]
    return {
        "name": item.name,
        "stamp": item.stamp,
        "drawing": drawing,
        "note": item.image.note,
        "width": width,
        "height": height,
    }


def _draw(
    pixels: np.ndarray, result: Instances | torch.Tensor, class_names: list[str], file: Path
) -> None:
    # Here, because matplotlib's import takes its time.
    from ..draw.class_colors import draw_labels
    from ..draw.instances import draw_instances

    if isinstance(result, torch.Tensor):
        drawn = draw_labels(pixels, result.numpy(), class_names, max_side=_DRAWN_SIDE)
    else:
        scale = min(1.0, _DRAWN_SIDE / max(pixels.shape))
        if scale < 1:
            pixels, result = _shrink(pixels, result, scale)
        drawn = draw_instances(pixels, result, class_names)
    _write_image(Image.fromarray(drawn), file)


def _write_image(image: Image.Image, file: Path) -> None:
    # In memory first: on a full disk Pillow raises no more than "encoder error -2".
    encoded = io.BytesIO()
    image.save(encoded, format="JPEG" if file.suffix == ".jpg" else "PNG", quality=90)
    file.parent.mkdir(parents=True, exist_ok=True)
    with writing(file) as f:
        f.write(encoded.getbuffer())


def _shrink(pixels: np.ndarray, instances: Instances, scale: float) -> tuple[np.ndarray, Instances]:
    """A smaller image and its instances, because drawing takes much memory."""
    height, width = (max(1, round(scale * side)) for side in pixels.shape[:2])
    boxes = instances.pred_boxes.clone()
    boxes.scale(width / pixels.shape[1], height / pixels.shape[0])
    fields = {**instances.get_fields(), "pred_boxes": boxes}
    if isinstance(fields.get("pred_masks"), torch.Tensor):  # ROIMasks are scaled by their boxes
        rows = torch.arange(height) * pixels.shape[0] // height
        columns = torch.arange(width) * pixels.shape[1] // width
        fields["pred_masks"] = fields["pred_masks"][:, rows[:, None], columns]
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(small), Instances((height, width), **fields)

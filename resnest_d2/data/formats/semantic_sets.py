"""ADE20K and Pascal Context, whose label maps count classes from 1 and have 0 where there is none.

Detectron2 knows ADE20K (``ade20k_sem_seg_train``, ``ade20k_sem_seg_val``) and expects label maps
that count from 0, which :func:`write_labels_from_zero` writes. Pascal Context is added here, with
the 59 classes of the published models, in the tree of MMSegmentation.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...files import make_folder
from ..check.image_files import in_threads
from ..image_reader import read_labels

_CONTEXT = (
    "aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus cabinet car cat "
    "ceiling chair cloth computer cow cup curtain dog door fence floor flower food grass ground "
    "horse keyboard light motorbike mountain mouse person plate platform pottedplant road rock "
    "sheep shelves sidewalk sign sky snow sofa table track train tree truck tvmonitor wall water "
    "window wood"
).split()
_LABELS = "SegmentationClassContext"


def write_labels_from_zero(label_root: str | os.PathLike, out: str | os.PathLike) -> None:
    """Write label maps with classes from 0, and 255 where there is none.

    For ADE20K: ``annotations/training`` to ``annotations_detectron2/training``, and ``validation``
    likewise. For Pascal Context: ``SegmentationClassContext`` to
    ``SegmentationClassContext_detectron2``.

    Args:
        label_root: folder of PNG files with classes from 1, and 0 where there is none.
        out: new folder, for files of the same names.

    Raises:
        FileNotFoundError: ``label_root`` has no PNG file.
        FileExistsError: ``out`` exists.
        ValueError: a value above 255, or a file with colours.
    """
    files = sorted(Path(label_root).rglob("*.png"))
    if not files:
        raise FileNotFoundError(f"{label_root} has no PNG file")
    if os.path.exists(out):
        raise FileExistsError(f"{out} exists and is not overwritten")

    def fill(folder: str) -> None:
        def write(path: str) -> None:
            labels = read_labels(path)
            if labels.max() > 255:
                raise ValueError(f"{path} has the value {labels.max()}: at most 255 is a class")
            target = Path(folder, os.path.relpath(path, label_root))
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels.astype(np.uint8) - np.uint8(1)).save(target)  # 0 becomes 255

        in_threads(write, list(map(str, files)), "writing label maps")

    make_folder(os.fspath(out), fill)


def register_pascal_context() -> None:
    """Register ``pascal_context_59_sem_seg_train`` and ``_val`` unless their names are taken."""
    root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    folder = os.path.join(root, "VOCdevkit", "VOC2010")
    for split in ("train", "val"):
        name = f"pascal_context_59_sem_seg_{split}"
        if name in DatasetCatalog:
            continue
        DatasetCatalog.register(name, lambda split=split: _read_context(folder, split))
        MetadataCatalog.get(name).set(
            image_root=os.path.join(folder, "JPEGImages"),
            sem_seg_root=os.path.join(folder, f"{_LABELS}_detectron2"),
            stuff_classes=list(_CONTEXT),
            ignore_label=255,
            evaluator_type="sem_seg",
        )


def _read_context(folder: str, split: str) -> list[dict]:
    names = Path(folder, "ImageSets", "SegmentationContext", f"{split}.txt").read_text().split()
    return [
        {
            "file_name": os.path.join(folder, "JPEGImages", f"{name}.jpg"),
            "sem_seg_file_name": os.path.join(folder, f"{_LABELS}_detectron2", f"{name}.png"),
            "image_id": name,
        }
        for name in names
    ]

"""Images and label maps in folders, registered with Detectron2 for semantic segmentation."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..formats.coco import is_registered, name_of_files
from .label_maps import LabelMaps, read_class_names, usable_label_maps


@dataclass(frozen=True)
class LabelMapFiles:
    """A checked data set of images and label maps: any process can register it.

    Attributes:
        pairs: paths of image and label map below their folders.
        sizes: (width, height) of each image, pixels.
    """

    name: str
    image_root: str
    label_root: str
    class_names: tuple[str, ...]
    ignore_value: int
    pairs: tuple[tuple[str, str], ...]
    sizes: tuple[tuple[int, int], ...]

    def register(self) -> None:
        """Register it with Detectron2 in this process.

        Raises:
            ValueError: the name is taken by other files.
        """
        files = {"image_root": self.image_root, "sem_seg_root": self.label_root}
        if is_registered(self.name, files, self):
            return
        DatasetCatalog.register(self.name, self._records)
        MetadataCatalog.get(self.name).set(
            **files,
            stuff_classes=list(self.class_names),
            ignore_label=self.ignore_value,
            evaluator_type="sem_seg",
        )

    def _records(self) -> list[dict]:
        return [
            {
                "file_name": os.path.join(self.image_root, image),
                "sem_seg_file_name": os.path.join(self.label_root, label),
                "image_id": os.path.splitext(image)[0],
                "width": width,
                "height": height,
            }
            for (image, label), (width, height) in zip(self.pairs, self.sizes, strict=True)
        ]


def register_label_maps(
    label_root: str | os.PathLike,
    image_root: str | os.PathLike,
    classes: Sequence[str] | str | os.PathLike,
    *,
    name: str | None = None,
    ignore_value: int = 255,
) -> str:
    """Check images and label maps in two folders and register them with Detectron2.

    Args:
        label_root, image_root: see :mod:`.label_maps`.
        classes: names by class number, or a file of :func:`.label_maps.read_class_names`.
        name: by default one that is computed from the folders, the same in every process.
        ignore_value: in label maps, for pixels without a class.

    Returns:
        The name, for ``DATASETS.TRAIN`` or ``DATASETS.TEST``.

    Raises:
        FileNotFoundError: a folder does not exist, or has no image.
        ValueError: with all that is refused, or the name is taken by other files.
    """
    label_root, image_root = os.fspath(label_root), os.fspath(image_root)
    if isinstance(classes, (str, os.PathLike)):
        classes = read_class_names(classes)
    found = usable_label_maps(image_root, label_root, len(classes), ignore_value)
    files = label_map_files(found, classes, ignore_value=ignore_value, name=name)
    files.register()
    return files.name


def label_map_files(
    found: LabelMaps, classes: Sequence[str], *, ignore_value: int, name: str | None = None
) -> LabelMapFiles:
    """What of two folders can be used, to be registered."""
    name = name or name_of_files(found.label_root, found.image_root, kind="labels")
    return LabelMapFiles(
        name,
        found.image_root,
        found.label_root,
        tuple(classes),
        ignore_value,
        tuple(found.pairs),
        tuple(found.sizes),
    )

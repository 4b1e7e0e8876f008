"""Images in folders of classes, registered with Detectron2 for classification; ImageNet."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..formats.coco import is_registered, name_of_files
from .class_folders import ClassFolders

_IMAGENET = "imagenet_2012"


@dataclass(frozen=True)
class ClassFolderFiles:
    """A checked data set of images in folders of classes: any process can register it.

    Attributes:
        images: path below ``image_root`` and class number.
    """

    name: str
    image_root: str
    class_names: tuple[str, ...]
    images: tuple[tuple[str, int], ...]

    def register(self) -> None:
        """Register it with Detectron2 in this process.

        Raises:
            ValueError: the name is taken by other files.
        """
        if is_registered(self.name, {"image_root": self.image_root}, self):
            return
        DatasetCatalog.register(self.name, self._records)
        MetadataCatalog.get(self.name).set(
            image_root=self.image_root,
            thing_classes=list(self.class_names),
            evaluator_type="classification",
        )

    def _records(self) -> list[dict]:
        return _records(self.image_root, self.images)


def class_folder_files(found: ClassFolders) -> ClassFolderFiles:
    """What of the folders can be used, to be registered."""
    name = name_of_files(found.image_root, kind="classes")
    classes, images = tuple(found.class_names), tuple(found.images)
    return ClassFolderFiles(name, found.image_root, classes, images)


def register_imagenet() -> None:
    """Register ``imagenet_2012_train`` and ``_val`` unless their names are taken.

    They are in ``$DETECTRON2_DATASETS/imagenet/train/CLASS/`` and ``val/CLASS/``.
    """
    root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    for split in ("train", "val"):
        name, folder = f"{_IMAGENET}_{split}", os.path.join(root, "imagenet", split)
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, lambda name=name, at=folder: _read_imagenet(name, at))
            MetadataCatalog.get(name).set(image_root=folder, evaluator_type="classification")


def _read_imagenet(name: str, root: str) -> list[dict]:
    """All files of the folders, which are not looked at: there are more than a million."""
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    MetadataCatalog.get(name).set(thing_classes=folders)
    images = [
        (os.path.join(folder, file), number)
        for number, folder in enumerate(folders)
        for file in sorted(os.listdir(os.path.join(root, folder)))
    ]
    return _records(root, images)


def _records(root: str, images: Iterable[tuple[str, int]]) -> list[dict]:
    return [
        {
            "file_name": os.path.join(root, path),
            "image_id": os.path.splitext(path)[0],
            "label": number,
        }
        for path, number in images
    ]

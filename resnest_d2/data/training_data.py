"""How much there is to train on: images of an epoch, and objects of each class."""

import functools
import logging
import os
from collections import Counter
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.build import (
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
)

from .check.data_sets import file_state
from .check.image_files import sample

_SAMPLED = 16  # files


@dataclass(frozen=True)
class TrainingData:
    """What a training loader draws from.

    Attributes:
        images: number of images, without those that the config's filters leave out.
        instances: number of annotated objects of each class, crowds left out, or of images where
            these have classes; None where the data sets have neither.
        crowds: number of annotations with ``iscrowd`` 1, which are not trained on, also in images
            that the filters leave out.
        files: some of the images, evenly spaced.
    """

    images: int
    instances: tuple[int, ...] | None
    class_names: tuple[str, ...]
    crowds: int = 0
    files: tuple[str, ...] = ()

    @property
    def empty_classes(self) -> list[str]:
        """Names of the classes without an object."""
        counts = zip(self.class_names, self.instances or (), strict=False)
        return [name for name, count in counts if not count]


def summarise_training_data(cfg: CfgNode) -> TrainingData:
    """Count what is in ``DATASETS.TRAIN`` after the filters that the training loader applies.

    A data set is read as Detectron2 reads it, so that the numbers are those of the loader; once in
    a process, unless its file changes or it is registered anew.

    Raises:
        ValueError: there is no image to train on.
    """
    files = [MetadataCatalog.get(name).get("json_file") for name in cfg.DATASETS.TRAIN]
    return _summarise(
        tuple(cfg.DATASETS.TRAIN),
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
        tuple(file_state(file) for file in files if file and os.path.isfile(file)),
        tuple(map(DatasetCatalog.data.get, cfg.DATASETS.TRAIN)),
    )


@functools.lru_cache(maxsize=8)
def _summarise(
    names: tuple[str, ...], filter_empty: bool, min_keypoints: int, states: tuple, loaders: tuple
) -> TrainingData:
    crowds, log = 0, logging.getLogger("detectron2")
    level = log.level
    try:
        log.setLevel(logging.WARNING)  # the loader will log the rest
        records = get_detection_dataset_dicts(list(names), filter_empty=False)
        if "annotations" in records[0]:
            crowds = sum(_is_crowd(a) for record in records for a in record["annotations"])
            if filter_empty:
                records = filter_images_with_only_crowd_annotations(records)
            if min_keypoints:
                records = filter_images_with_few_keypoints(records, min_keypoints)
        assert len(records), "none is left by the filters"
    except AssertionError as error:
        kept = " with an object" if filter_empty else ""
        raise ValueError(
            f"DATASETS.TRAIN {', '.join(names)} has no image{kept} to train on: {error}"
        ) from error
    finally:
        log.setLevel(level)
    class_names = tuple(MetadataCatalog.get(names[0]).get("thing_classes", ()))
    instances = None
    if class_names and "annotations" in records[0]:
        counts = Counter(
            annotation["category_id"]
            for record in records
            for annotation in record["annotations"]
            if not _is_crowd(annotation)
        )
        instances = tuple(counts[i] for i in range(len(class_names)))
    elif class_names and "label" in records[0]:
        counts = Counter(record["label"] for record in records)
        instances = tuple(counts[i] for i in range(len(class_names)))
    places = sample(range(len(records)), _SAMPLED)
    files = tuple(filter(None, (records[place].get("file_name") for place in places)))
    return TrainingData(len(records), instances, class_names, crowds, files)


def _is_crowd(annotation: dict) -> bool:
    return annotation.get("iscrowd", 0) == 1

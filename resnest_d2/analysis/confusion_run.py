"""Evaluated runs whose metrics come from confusions: semantic segmentation, classification.

The results are the counts of :mod:`..evaluation.image_confusions` and, to show predictions,
Detectron2's ``sem_seg_predictions.json`` or our ``classification_predictions.json``.
"""

import abc
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_util

from detectron2.config import CfgNode

from ..data.check.rle import check_text
from ..evaluation.classification_evaluator import PREDICTIONS as CLASS_PREDICTIONS
from ..evaluation.image_confusions import IMAGE_CONFUSIONS, ClassCounts, ImageConfusions
from ..evaluation.sem_seg_evaluator import PREDICTIONS
from .run_folder import (
    EvaluatedRun,
    WeightedMetrics,
    is_number,
    read_history,
    read_json,
    recorded_data,
    results_file,
)


@dataclass(frozen=True)
class ConfusionRun(EvaluatedRun, abc.ABC):
    """A run whose metrics come from the confusions of its images.

    Attributes:
        confusions: of each image of the evaluation.
        image_root: folder of the images, or of the class folders.
        predictions: the file of the predicted label maps or classes.
    """

    confusions: ImageConfusions
    image_root: Path
    predictions: Path

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.confusions.class_names.tolist())

    @property
    def num_images(self) -> int:
        return len(self.confusions.images)

    @cached_property
    def image_size(self) -> tuple[int, int]:
        height, width = np.median(self.confusions.sizes, axis=0).astype(int).tolist()
        return height, width

    def content(self, tasks: Sequence[str]) -> dict[str, dict]:
        own, classes = self.confusions, len(self.class_names)
        truths, places = np.unique(
            own.image.astype(np.int64) * classes + own.truth, return_inverse=True
        )
        sums = np.bincount(places.ravel(), own.counts)
        by_image = defaultdict(list)
        for truth, count in zip(truths.tolist(), sums.tolist(), strict=True):
            by_image[own.images[truth // classes]].append((truth % classes, count))
        return {
            "images": {name: place for place, name in enumerate(own.images.tolist())},
            "classes": dict(enumerate(self.class_names)),
            "classes in images": dict(by_image),
        }

    def weighted_metrics(
        self, task: str, times: np.ndarray, *, on_class: Callable[[], object] = lambda: None
    ) -> WeightedMetrics:
        return self.metrics_of(self.confusions.class_counts(times, on_class=on_class))

    @abc.abstractmethod
    def metrics_of(self, counts: ClassCounts) -> WeightedMetrics:
        """The metrics of the task."""


@dataclass(frozen=True)
class SegmentationRun(ConfusionRun):
    """Predicted label maps of a run, with what is needed to judge and to show them.

    Attributes:
        label_root: folder of the label maps of the evaluation.
    """

    label_root: Path

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("sem_seg",)

    @property
    def data(self) -> Path:
        return self.label_root

    def metrics_of(self, counts: ClassCounts) -> WeightedMetrics:
        """:data:`.SEGMENTATION_METRICS`, and the IoU of each class."""
        return WeightedMetrics(counts.segmentation_metrics(), counts.iou.T)

    def predicted_labels(self, images: Sequence[int]) -> dict[int, np.ndarray]:
        """The predicted class numbers (H, W) of some images, by position.

        Raises:
            ValueError: the file of the predictions is missing, invalid or of another evaluation.
        """
        segments = defaultdict(list)
        for segment in read_json(self.predictions, list):
            if type(segment) is dict and type(segment.get("file_name")) is str:
                segments[segment["file_name"]].append(segment)
        found = {}
        for image in images:
            name = str(self.confusions.images[image])
            # The shortest: "b.jpg" ends the paths of "b.jpg" and "a/b.jpg" below the same folder.
            file = min((f for f in segments if f.endswith(name)), key=len, default="")
            found[image] = self._decode(name, image, segments.get(file, []))
        return found

    def _decode(self, name: str, image: int, segments: Sequence[dict]) -> np.ndarray:
        height, width = self.confusions.sizes[image].tolist()
        ids = self.confusions.category_ids.tolist()
        labels = np.full((height, width), -1, np.int16)
        for segment in segments:
            category, mask = segment.get("category_id"), segment.get("segmentation")
            sound = category in ids and type(mask) is dict and mask.get("size") == [height, width]
            if (
                not sound
                or type(mask.get("counts")) is not str
                or check_text(mask["counts"], height * width)
            ):
                raise ValueError(f"{self.predictions} has no valid label map of {name}")
            labels[mask_util.decode(mask).astype(bool)] = ids.index(category)
        if labels.min() < 0:
            raise ValueError(f"{self.predictions} has no whole label map of {name}")
        return labels


@dataclass(frozen=True)
class ClassificationRun(ConfusionRun):
    """Classified images of a run, with what is needed to judge and to show them."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("classification",)

    @property
    def data(self) -> Path:
        return self.image_root

    def metrics_of(self, counts: ClassCounts) -> WeightedMetrics:
        """:data:`.CLASSIFICATION_METRICS`, and the accuracy of each class."""
        return WeightedMetrics(counts.classification_metrics(), counts.accuracy.T)

    def best_classes(self) -> list[dict[int, float]]:
        """Of each image, in their order: probabilities by class number, the highest first.

        Raises:
            ValueError: the file of the predictions is missing, invalid or of another evaluation.
        """
        found = []
        for entry in read_json(self.predictions, list):
            entry = entry if type(entry) is dict else {}
            numbers, values = entry.get("classes"), entry.get("probabilities")
            sound = type(numbers) is list and type(values) is list and len(numbers) == len(values)
            if (
                not sound
                or not all(type(n) is int and 0 <= n < len(self.class_names) for n in numbers)
                or not all(map(is_number, values))
            ):
                raise ValueError(f"{self.predictions} has an entry without valid classes")
            found.append(dict(zip(numbers, values, strict=True)))
        if len(found) != self.num_images:
            raise ValueError(
                f"{self.predictions} is of {len(found)} images, expected {self.num_images}"
            )
        return found


def read_classification_run(
    folder: Path, config: CfgNode, data: tuple[str, str] | None = None
) -> ClassificationRun:
    """See :func:`.read_evaluated_run`.

    Args:
        data: ("", folder of the class folders) of the evaluation, if it has moved.
    """
    file = results_file(folder, IMAGE_CONFUSIONS)
    if data and data[0]:
        raise ValueError(
            f"{folder} was evaluated on class folders: give --val-images alone, without {data[0]}"
        )
    (image_root,) = [Path(data[1])] if data else recorded_data(file, "image_root")
    confusions = ImageConfusions.read(file)
    if confusions.labels is not None:
        raise ValueError(f"{file} is of label maps, and {folder} has an ImageClassifier")
    return ClassificationRun(
        folder=folder,
        config=config,
        history=read_history(folder / "metrics.json"),
        confusions=confusions,
        image_root=image_root,
        predictions=file.with_name(CLASS_PREDICTIONS),
    )


def read_segmentation_run(
    folder: Path, config: CfgNode, data: tuple[str, str] | None = None
) -> SegmentationRun:
    """See :func:`.read_evaluated_run`.

    Args:
        data: (folder of label maps, image folder) of the evaluation, if they have moved.
    """
    file = results_file(folder, IMAGE_CONFUSIONS, "--val-labels DIR")
    for given in data or ():
        if not given or not Path(given).is_dir():
            raise FileNotFoundError(
                f"{given or 'nothing'} is no folder: {folder} was evaluated on label maps, give "
                "their folders (--val-labels, --val-images)"
            )
    label_root, image_root = map(Path, data or recorded_data(file, "label_root", "image_root"))
    confusions = ImageConfusions.read(file)
    if confusions.labels is None or confusions.category_ids is None:
        raise ValueError(f"{file} is not of label maps, and {folder} has a SemanticSegmentor")
    return SegmentationRun(
        folder=folder,
        config=config,
        history=read_history(folder / "metrics.json"),
        confusions=confusions,
        image_root=image_root,
        label_root=label_root,
        predictions=file.with_name(PREDICTIONS),
    )

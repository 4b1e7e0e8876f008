"""How often each class was taken for each other one, image by image, and the metrics of it.

Every task whose metrics come from a confusion matrix is reported and compared by these counts. For
semantic segmentation an image has one count for each labelled pixel, for classification a single
one. Most classes are not in an image, so only the counts above 0 are kept.

IoU and accuracy are Detectron2's: a class that no image of the data has is left out of the means,
also where it was predicted.
"""

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from ..files import require_regular_file, writing

IMAGE_CONFUSIONS = "image_confusions.npz"
"""File name of the counts of an evaluation."""

SEGMENTATION_METRICS = ("mIoU", "fwIoU", "mACC", "pACC")
CLASSIFICATION_METRICS = ("top1", "class_mean")

_FORM = {
    "class_names": ("U", "K", ""),
    "category_ids": ("iu", "K", ""),
    "images": ("U", "I", ""),
    "labels": ("U", "I", ""),
    "sizes": ("iu", "I2", ""),
    "image": ("iu", "N", "I"),
    "truth": ("iu", "N", "K"),
    "predicted": ("iu", "N", "K"),
    "counts": ("iu", "N", ""),
}
"""Kinds of type, shape, and what the numbers are below."""


@dataclass(frozen=True)
class ClassCounts:
    """Counts of each class on B data sets, float64 (B, K), exact below 2^53.

    Attributes:
        correct: of this class, and predicted as it.
        truth: of this class.
        predicted: predicted as this class.
    """

    correct: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """(B, K), 0-100; NaN where the data has no such class."""
        return self._share(self.truth + self.predicted - self.correct)

    @property
    def accuracy(self) -> np.ndarray:
        """(B, K), the share of a class that is predicted as it, 0-100; NaN as above."""
        return self._share(self.truth)

    @property
    def precision(self) -> np.ndarray:
        """(B, K), the share of a class' predictions that are right, 0-100; NaN without any."""
        return _percent(self.correct, self.predicted)

    @property
    def overall_accuracy(self) -> np.ndarray:
        """(B,), the share of everything that is right, 0-100."""
        return _percent(self.correct.sum(axis=1), self.truth.sum(axis=1))

    def segmentation_metrics(self) -> np.ndarray:
        """(4, B), :data:`SEGMENTATION_METRICS`: mean IoU, IoU weighted by the frequency of the
        classes, mean accuracy of the classes, accuracy of the pixels.
        """
        weights = self.truth / np.maximum(1, self.truth.sum(axis=1, keepdims=True))
        weighted = np.nansum(weights * self.iou, axis=1)
        return np.stack([_mean(self.iou), weighted, _mean(self.accuracy), self.overall_accuracy])

    def classification_metrics(self) -> np.ndarray:
        """(2, B), :data:`CLASSIFICATION_METRICS`: accuracy of the images, mean accuracy of the
        classes.
        """
        return np.stack([self.overall_accuracy, _mean(self.accuracy)])

    def _share(self, whole: np.ndarray) -> np.ndarray:
        return np.where(self.truth > 0, _percent(self.correct, whole), np.nan)


@dataclass(frozen=True)
class ImageConfusions:
    """The counts of an evaluation: N of them in I images and K classes.

    Attributes:
        class_names: (K,).
        images: (I,), files below the image folder, sorted.
        sizes: (I, 2), height and width, pixels.
        image: (N,), position of the image of each count.
        truth, predicted: (N,), class numbers.
        counts: (N,), above 0.
        labels: (I,), files of the label maps below their folder; None for other tasks.
        category_ids: (K,), ids of the classes in Detectron2's file of label maps; None as well.
    """

    class_names: np.ndarray
    images: np.ndarray
    sizes: np.ndarray
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    counts: np.ndarray
    labels: np.ndarray | None = None
    category_ids: np.ndarray | None = None

    @cached_property
    def matrix(self) -> np.ndarray:
        """(K, K), int64, of all images: true classes in the rows, predicted ones in the columns."""
        classes = len(self.class_names)
        matrix = np.zeros((classes, classes), np.int64)
        np.add.at(matrix, (self.truth, self.predicted), self.counts)
        return matrix

    @cached_property
    def by_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Right counts and all counts of each image, (I,) each."""
        right = np.where(self.truth == self.predicted, self.counts, 0)
        return tuple(
            np.bincount(self.image, counts, len(self.images)) for counts in (right, self.counts)
        )

    def image_matrix(self, image: int) -> np.ndarray:
        """:attr:`matrix` of one image, by its position."""
        own = self.image == image
        matrix = np.zeros_like(self.matrix)
        matrix[self.truth[own], self.predicted[own]] = self.counts[own]
        return matrix

    def class_counts(
        self, times: np.ndarray | None = None, *, on_class: Callable[[], object] = lambda: None
    ) -> ClassCounts:
        """The counts of each class on B data sets.

        Args:
            times: how many times each image counts in each data set (B, I), float64; None for the
                data as it is (B = 1).
            on_class: called after each class, for a progress bar.
        """
        times = np.ones((1, len(self.images))) if times is None else times
        found = np.zeros((3, len(times), len(self.class_names)))
        for number in range(len(self.class_names)):
            truth, predicted = self.truth == number, self.predicted == number
            for sums, own in zip(found, (truth & predicted, truth, predicted), strict=True):
                by_image = np.bincount(self.image[own], self.counts[own], len(self.images))
                images = np.flatnonzero(by_image)
                sums[:, number] = times[:, images] @ by_image[images]
            on_class()
        return ClassCounts(*found)

    def write(self, file: str | os.PathLike) -> None:
        """Write a numpy archive (``.npz``) with the attributes as keys."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        with writing(file) as archive:
            np.savez_compressed(archive, **{k: v for k, v in arrays.items() if v is not None})

    @classmethod
    def read(cls, file: str | os.PathLike) -> "ImageConfusions":
        """Read what :meth:`write` has written; a ValueError if it is something else."""
        try:
            require_regular_file(file)
            with np.load(file, allow_pickle=False) as archive:
                found = cls(**{f.name: archive[f.name] for f in fields(cls) if f.name in archive})
        except (OSError, ValueError, TypeError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{file} cannot be read: {error}") from error
        lengths = {"K": found.class_names.size, "I": found.images.size, "N": found.counts.size}
        for name, (kinds, shape, below) in _FORM.items():
            values = getattr(found, name)
            if values is None:
                continue
            sound = values.dtype.kind in kinds and values.shape == tuple(
                lengths.get(side, 2) for side in shape
            )
            if sound and values.size and "i" in kinds:
                sound = 0 <= values.min() and values.max() < lengths.get(below, 2**53)
            if not sound:
                raise ValueError(f"{file} has no valid {name}")
        return found


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return 100 * np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """(B,), the means of (B, K) without NaN."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):  # 0 / 0: no class is known
        return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)

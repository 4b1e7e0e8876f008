"""Detectron2's metrics of semantic segmentation, with the counts of each image they come from."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detectron2.data import MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils import comm

from ..data.image_reader import read_mask
from .data_file import write_data_file
from .image_confusions import IMAGE_CONFUSIONS, ImageConfusions

PREDICTIONS = "sem_seg_predictions.json"
"""File name of the predicted label maps of an evaluation, as Detectron2 writes them."""


class SegmentationEvaluator(SemSegEvaluator):
    """Detectron2's evaluator, of which files and metrics stay the same.

    It also writes :data:`.IMAGE_CONFUSIONS`, which comparisons of runs and reports are made of. Of
    an image only the counts above 0 are kept until then.

    Args:
        dataset_name, output_dir: see Detectron2's.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None):
        super().__init__(dataset_name, output_dir=output_dir, sem_seg_loading_fn=read_labels_as)
        self._metadata = MetadataCatalog.get(dataset_name)

    def reset(self):
        super().reset()
        self._counts: dict[str, tuple[np.ndarray, ...]] = {}  # by file of the image

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for item, output in zip(inputs, outputs, strict=True):
            before = self._conf_matrix.copy()
            super().process([item], [output])
            own = (self._conf_matrix - before)[:-1, :-1].T  # without pixels that are not labelled
            truth, predicted = np.nonzero(own)
            size = np.array(output["sem_seg"].shape[-2:])
            found = size, truth.astype(np.int32), predicted.astype(np.int32), own[truth, predicted]
            self._counts.setdefault(item["file_name"], found)

    def evaluate(self):
        results = super().evaluate()
        gathered = comm.gather(self._counts)
        if comm.is_main_process() and self._output_dir and "://" not in self._output_dir:
            self._write({file: found for part in gathered for file, found in part.items()})
        return results

    def _write(self, counts: dict[str, tuple[np.ndarray, ...]]) -> None:
        labels = {image: self.input_file_to_gt_file[image] for image in sorted(counts)}
        found = [counts[image] for image in labels]
        ids = self._contiguous_id_to_dataset_id or {}
        image_root = _root(labels, self._metadata, "image_root", "image_dir")
        label_root = _root(labels.values(), self._metadata, "sem_seg_root", "gt_dir")
        sizes, truth, predicted, numbers = zip(*found, strict=True)
        confusions = ImageConfusions(
            class_names=np.array(self._class_names),
            category_ids=np.array([ids.get(number, number) for number in range(self._num_classes)]),
            images=np.array([os.path.relpath(image, image_root) for image in labels]),
            labels=np.array([os.path.relpath(label, label_root) for label in labels.values()]),
            sizes=np.stack(sizes),
            image=np.repeat(np.arange(len(found)), [len(own) for own in numbers]),
            truth=np.concatenate(truth),
            predicted=np.concatenate(predicted),
            counts=np.concatenate(numbers),
        )
        write_data_file(self._output_dir, image_root=image_root, label_root=label_root)
        confusions.write(Path(self._output_dir, IMAGE_CONFUSIONS))


def read_labels_as(path: str, dtype: type) -> np.ndarray:
    """A label map (H, W), read as in training."""
    return read_mask(path).astype(dtype)


def _root(files: Sequence[str], metadata, *names: str) -> str:
    """The folder that a data set's metadata name, or else the last one that all files are in."""
    named = [metadata.get(name) for name in names]
    return next(filter(None, named), None) or os.path.commonpath(map(os.path.dirname, files))

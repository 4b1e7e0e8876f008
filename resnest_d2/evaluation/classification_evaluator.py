"""Accuracy of image classification: top-1 and top-5, overall and by class."""

import itertools
import json
import os

import numpy as np

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..files import write_text

_TOP = 5
PREDICTIONS = "classification_predictions.json"


class ClassificationEvaluator(DatasetEvaluator):
    """Percentages: ``top1``, ``top5``, ``class_mean`` (of top-1 by class), ``top1-CLASS``.

    A class without an image has NaN. ``top5`` asks whether the right class is among the five with
    the highest scores. With several processes, only the first one returns metrics.

    Args:
        dataset_name: a data set with ``thing_classes`` in its metadata.
        output_folder: gets ``classification_predictions.json``: for each image its id, file, class
            number and the five classes with the highest probabilities.
    """

    def __init__(self, dataset_name: str, output_folder: str | None = None):
        self._dataset_name = dataset_name
        self._output_folder = output_folder
        self._predictions: list[dict] = []

    def reset(self):
        self._predictions = []

    def process(self, inputs, outputs):
        for record, output in zip(inputs, outputs, strict=True):
            probabilities = output["probabilities"]
            best = probabilities.topk(min(_TOP, len(probabilities)))
            self._predictions.append(
                {
                    "image_id": record["image_id"],
                    "file_name": record["file_name"],
                    "label": record["label"],
                    "classes": best.indices.tolist(),
                    "probabilities": [round(value, 6) for value in best.values.tolist()],
                }
            )

    def evaluate(self):
        comm.synchronize()
        gathered = comm.gather(self._predictions)
        if not comm.is_main_process():
            return None
        predictions = sorted(itertools.chain(*gathered), key=lambda found: found["image_id"])
        if self._output_folder:
            os.makedirs(self._output_folder, exist_ok=True)
            file = os.path.join(self._output_folder, PREDICTIONS)
            write_text(file, json.dumps(predictions))
        names = MetadataCatalog.get(self._dataset_name).thing_classes
        return {"classification": _accuracy(predictions, names)}


def _accuracy(predictions: list[dict], class_names: list[str]) -> dict[str, float]:
    labels = np.array([found["label"] for found in predictions])
    first = np.array([found["classes"][0] == found["label"] for found in predictions])
    among = [found["label"] in found["classes"] for found in predictions]
    by_class = [
        100 * first[labels == number].mean() if (labels == number).any() else np.nan
        for number in range(len(class_names))
    ]
    return {
        "top1": 100 * float(first.mean()),
        "top5": 100 * float(np.mean(among)),
        "class_mean": float(np.nanmean(by_class)),
        **{f"top1-{name}": float(own) for name, own in zip(class_names, by_class, strict=True)},
    }

"""Accuracy of image classification: top-1 and top-5, overall and by class."""

import itertools
import json
import os
from pathlib import Path

import numpy as np

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..files import write_text
from .data_file import write_data_file
from .image_confusions import IMAGE_CONFUSIONS, ImageConfusions

_TOP = 5
PREDICTIONS = "classification_predictions.json"
"""File name of the most likely classes of each image of an evaluation."""


class ClassificationEvaluator(DatasetEvaluator):
    """Percentages: ``top1``, ``top5``, ``class_mean`` (of top-1 by class), ``top1-CLASS``.

    A class without an image has NaN. ``top5`` asks whether the right class is among the five with
    the highest scores. With several processes, only the first one returns metrics.

    Args:
        dataset_name: a data set with ``thing_classes`` in its metadata.
        output_folder: gets ``classification_predictions.json``, for each image its file, class
            number and the five classes with the highest probabilities, and
            :data:`.IMAGE_CONFUSIONS`, which comparisons of runs and reports are made of.
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
                    "file_name": record["file_name"],
                    "label": record["label"],
                    "size": [record["height"], record["width"]],
                    "classes": best.indices.tolist(),
                    "probabilities": [round(value, 6) for value in best.values.tolist()],
                }
            )

    def evaluate(self):
        comm.synchronize()
        gathered = comm.gather(self._predictions)
        if not comm.is_main_process():
            return None
        predictions = sorted(itertools.chain(*gathered), key=lambda found: found["file_name"])
        metadata = MetadataCatalog.get(self._dataset_name)
        root = metadata.image_root
        for found in predictions:
            found["file_name"] = os.path.relpath(found["file_name"], root)
        confusions = _confusions(predictions, metadata.thing_classes)
        if self._output_folder:
            os.makedirs(self._output_folder, exist_ok=True)
            write_text(Path(self._output_folder, PREDICTIONS), json.dumps(predictions))
            write_data_file(self._output_folder, image_root=root)
            confusions.write(Path(self._output_folder, IMAGE_CONFUSIONS))
        return {"classification": _accuracy(predictions, confusions)}


def _confusions(predictions: list[dict], class_names: list[str]) -> ImageConfusions:
    return ImageConfusions(
        class_names=np.array(class_names),
        images=np.array([found["file_name"] for found in predictions]),
        sizes=np.array([found["size"] for found in predictions]),
        image=np.arange(len(predictions)),
        truth=np.array([found["label"] for found in predictions]),
        predicted=np.array([found["classes"][0] for found in predictions]),
        counts=np.ones(len(predictions), np.int64),
    )


def _accuracy(predictions: list[dict], confusions: ImageConfusions) -> dict[str, float]:
    counts = confusions.class_counts()
    top1, class_mean = counts.classification_metrics()[:, 0].tolist()
    among = [found["label"] in found["classes"] for found in predictions]
    by_class = zip(confusions.class_names.tolist(), counts.accuracy[0].tolist(), strict=True)
    return {
        "top1": top1,
        "top5": 100 * float(np.mean(among)),
        "class_mean": class_mean,
        **{f"top1-{name}": own for name, own in by_class},
    }

"""Panoptic quality (PQ, arXiv 1801.00868) without panopticapi, which is on no package index.

hotcoco computes it, with the rules for crowds and unlabelled pixels (verified in hotcoco's tests
against panopticapi). Categories, names and scale of the metrics are those of Detectron2.
"""

import io
import itertools
import json
import logging
import math
import os
import tempfile

import numpy as np
from hotcoco.panoptic import PanopticEval
from PIL import Image

from detectron2.evaluation import COCOPanopticEvaluator
from detectron2.utils import comm

logger = logging.getLogger(__name__)

_PARTS = {"": "All", "_th": "Things", "_st": "Stuff"}


class PanopticEvaluator(COCOPanopticEvaluator):
    """PQ, SQ and RQ (0-100) of all classes, things (``_th``) and stuff (``_st``).

    They are NaN where the data has no such class. With several processes, only the first one
    returns metrics.

    Args:
        dataset_name: a data set with ``panoptic_json`` and ``panoptic_root`` in its metadata.
    """

    def process(self, inputs, outputs):
        """Keep ``panoptic_seg`` of each output: segment ids (H, W), 0 unlabelled, and segments."""
        for record, output in zip(inputs, outputs, strict=True):
            ids, segments = output["panoptic_seg"]
            segments = [self._convert_category_id(dict(segment)) for segment in segments]
            ids = ids.cpu().numpy()
            colours = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=2)  # (H, W, 3)
            png = io.BytesIO()
            Image.fromarray(colours.astype(np.uint8)).save(png, format="PNG")
            self._predictions.append(
                {
                    "image_id": record["image_id"],
                    "file_name": f"{record['image_id']}.png",
                    "png": png.getvalue(),
                    "segments_info": [
                        {"id": segment["id"], "category_id": segment["category_id"]}
                        for segment in segments
                    ],
                }
            )

    def evaluate(self):
        comm.synchronize()
        gathered = comm.gather(self._predictions)
        if not comm.is_main_process():
            return None
        with tempfile.TemporaryDirectory(prefix="panoptic_eval") as folder:
            annotations = []
            for prediction in itertools.chain(*gathered):
                annotation = {key: value for key, value in prediction.items() if key != "png"}
                with open(os.path.join(folder, annotation["file_name"]), "wb") as f:
                    f.write(prediction["png"])
                annotations.append(annotation)
            predictions = os.path.join(folder, "predictions.json")
            with open(predictions, "w", encoding="utf-8") as f:
                json.dump({"annotations": annotations}, f)
            evaluation = PanopticEval(
                self._metadata.panoptic_json,
                predictions,
                gt_folder=self._metadata.panoptic_root,
                pred_folder=folder,
            )
            evaluation.evaluate()
        logger.info("Panoptic quality:\n" + "\n".join(evaluation.summary_lines()))
        found = evaluation.results()
        return {
            "panoptic_seg": {
                f"{metric}{suffix}": 100 * part[metric.lower()] if part["n"] else math.nan
                for suffix, part in ((suffix, found[key]) for suffix, key in _PARTS.items())
                for metric in ("PQ", "SQ", "RQ")
            }
        }

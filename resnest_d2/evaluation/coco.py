"""COCO metrics for the tasks that a config's heads have, and their JSON file."""

import json
import math
import os
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.config import CfgNode
from detectron2.evaluation import COCOEvaluator

__all__ = ["CocoEvaluator", "build_coco_evaluator", "write_results"]


class CocoEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator, for which a model without a detection has AP 0.

    Detectron2 leaves COCO's evaluation out then and reports NaN, which no comparison, no "best
    checkpoint" and no reader of a log can use.
    """

    def _derive_coco_results(self, coco_eval, iou_type, class_names=None):
        if coco_eval is None:
            nothing = COCO()
            nothing.dataset = {**self._coco_api.dataset, "annotations": []}
            nothing.createIndex()
            coco_eval = COCOeval(self._coco_api, nothing, iou_type)
            if iou_type != "keypoints":
                coco_eval.params.maxDets = self._max_dets_per_image
            elif self._kpt_oks_sigmas:
                coco_eval.params.kpt_oks_sigmas = np.array(self._kpt_oks_sigmas)
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        return super()._derive_coco_results(coco_eval, iou_type, class_names=class_names)


def build_coco_evaluator(cfg: CfgNode, dataset_name: str) -> CocoEvaluator:
    """The evaluator for a config's heads, on the reference implementation (pycocotools).

    It prints the 12 COCO numbers of each task: ``bbox``, and ``segm`` or ``keypoints`` where the
    config has such a head. Detections go to ``OUTPUT_DIR/inference``.
    """
    tasks = ["bbox"]
    if cfg.MODEL.MASK_ON:
        tasks.append("segm")
    if cfg.MODEL.KEYPOINT_ON:
        tasks.append("keypoints")
    return CocoEvaluator(
        dataset_name,
        tasks=tuple(tasks),
        output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"),
        use_fast_impl=False,
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
    )


def write_results(results: dict, path: str | os.PathLike) -> None:
    """Write metrics as JSON: ``{"bbox": {"AP": …}, "panoptic_seg": {"PQ": …}, …}``, on 0-100.

    A number that does not exist (AP of small objects where there are none) becomes ``null``. The
    file appears under its name only when it is complete.
    """

    def plain(value):
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        number = float(value)
        return number if math.isfinite(number) else None

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(plain(results), indent=2) + "\n")
    os.replace(temporary, path)

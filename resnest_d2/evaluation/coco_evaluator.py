"""COCO metrics of a model's outputs, for the tasks that the heads of a config have."""

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import hotcoco
import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.structures import Instances, ROIMasks
from detectron2.utils.file_io import PathManager

from ..data.check.normalise import given_ids
from ..errors import check_choice
from ..modeling.box_masks import encode_part, mask_parts, unpasted_masks
from ..text import printable
from .coco_metrics import IMPLEMENTATIONS, evaluate_results
from .data_file import write_data_file
from .ground_truth import GroundTruth

logger = logging.getLogger(__name__)

RESULTS = "coco_instances_results.json"
"""File name of the detections of an evaluation, in COCO's format."""

_ENCODED_PIXELS = 2**25  # of the masks that are encoded at once
_KEYPOINT_RECALLS = ("AR", "AR50", "AR75", "ARm", "ARl")


class CocoEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator with a choice of implementation, and more numbers.

    - A model without any detection has AP 0, where Detectron2 does not evaluate and gives NaN.
    - The results also have COCO's recalls (``AR1``, ``AR10``, ``AR100``, ``ARs``, ``ARm``, ``ARl``;
      for keypoints ``AR``, ``AR50``, ``AR75``, ``ARm``, ``ARl``), and ``AP-name`` also where a data
      set has only one class.
    - The numbers do not depend on how images are divided between processes. An image that a sampler
      gave twice, as PyTorch's does to give each process equally many, counts once.

    Args:
        implementation: ``"hotcoco"``, or ``"pycocotools"``, the slow reference.
        dataset_name, args, kwargs: see Detectron2's.
    """

    def __init__(self, dataset_name: str, *args, implementation: str = "hotcoco", **kwargs):
        check_choice("implementation", implementation, IMPLEMENTATIONS)
        super().__init__(dataset_name, *args, use_fast_impl=False, **kwargs)
        self._implementation = implementation

    @cached_property
    def _truth(self) -> GroundTruth:
        return GroundTruth(self._coco_api, name=self._metadata.json_file)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """As Detectron2's, but with :func:`encode_masks`: the same bytes, faster, less memory."""
        for item, output in zip(inputs, outputs, strict=True):
            rles = []
            if "instances" in output:
                instances, rles = encode_masks(output["instances"])
                output = {**output, "instances": instances}
            super().process([item], [output])
            for number, rle in enumerate(rles):
                self._predictions[-1]["instances"][number]["segmentation"] = rle

    def _eval_predictions(self, predictions, img_ids=None):
        results = self._results_in_order(predictions)
        tasks = sorted(self._tasks or self._tasks_from_predictions(results))
        if self._output_dir:
            file = os.path.join(self._output_dir, RESULTS)
            logger.info(f"Writing the detections to {file}")
            with PathManager.open(file, "w") as f:
                f.write(json.dumps(self._as_given(results)))
            if "://" not in self._output_dir:
                root = self._metadata.get("image_root", "")
                write_data_file(
                    self._output_dir, json_file=self._metadata.json_file, image_root=root
                )
        if not self._do_evaluation:
            logger.info(f"No metrics: {self._metadata.json_file} has no annotations")
            return
        for task in tasks:
            evaluation = evaluate_results(
                self._truth,
                results,
                task,
                implementation=self._implementation,
                max_dets=self._max_dets_per_image,
                oks_sigmas=self._kpt_oks_sigmas,
                image_ids=img_ids,
            )
            self._results[task] = self._derive_coco_results(
                evaluation, task, class_names=self._class_names()
            )

    def _as_given(self, results: list[dict]) -> list[dict]:
        """Results with the ids of the user's file, where reading it replaced them."""
        ids = {"image_id": self._coco_api.imgs, "category_id": self._coco_api.cats}
        given = {key: given_ids(records) for key, records in ids.items()}
        if not any(given.values()):
            return results
        return [
            result | {key: own.get(result[key], result[key]) for key, own in given.items()}
            for result in results
        ]

    def _class_names(self) -> list[str] | None:
        """Names of the classes, with the category id where two classes have the same name."""
        names = self._metadata.get("thing_classes")
        counts = Counter(names)
        if len(counts) == len(names or ()):
            return names
        ids = self._category_ids() or {}
        return [
            f"{name} (id {ids.get(index, index)})" if counts[name] > 1 else name
            for index, name in enumerate(names)
        ]

    def _results_in_order(self, predictions) -> list[dict]:
        """Results with category ids, in the order of the data set's images, each image once."""
        by_image = {}
        for prediction in predictions:
            by_image.setdefault(prediction["image_id"], prediction)
        if len(by_image) < len(predictions):
            logger.warning(
                f"{len(predictions) - len(by_image)} of {len(predictions)} predictions are for an "
                "image that had one already: the first one of each image counts"
            )
        known = self._coco_api.imgs
        unknown = [i for i in by_image if i not in known]
        if unknown:
            raise ValueError(
                f"predictions for images {unknown[:5]}, which {self._metadata.json_file} does not "
                "have: is it another data set?"
            )
        missing = [i for i in known if i not in by_image]
        if missing:
            logger.warning(
                f"no predictions for {len(missing)} of {len(known)} images of "
                f"{self._metadata.json_file} ({missing[:5]}): their objects count as not found"
            )
        results = []
        for prediction in (by_image[i] for i in known if i in by_image):
            self._to_dataset_ids(prediction)
            results.extend(prediction["instances"])
        return results

    def _category_ids(self) -> dict[int, int] | None:
        """Category id by class index; None where the data set has no such mapping."""
        indices = self._metadata.get("thing_dataset_id_to_contiguous_id")
        return indices and {index: category_id for category_id, index in indices.items()}

    def _to_dataset_ids(self, prediction: dict) -> None:
        """Replace class indices by category ids, in place and once: copies would take seconds."""
        ids = self._category_ids()
        if not ids or prediction.get("has_dataset_ids"):
            return
        for result in prediction["instances"]:
            if result["category_id"] not in ids:
                raise ValueError(
                    f"a prediction for image {prediction['image_id']} has class "
                    f"{result['category_id']}, and {self._metadata.name} has {len(ids)} classes, "
                    "from 0 on: was the model trained on other classes?"
                )
            result["category_id"] = ids[result["category_id"]]
        prediction["has_dataset_ids"] = True

    def _derive_coco_results(self, coco_eval, iou_type, class_names=None):
        class_names = class_names and [printable(name) for name in class_names]  # it logs a table
        results = super()._derive_coco_results(coco_eval, iou_type, class_names=class_names)
        names = (*(f"AR{n}" for n in sorted(self._max_dets_per_image)), "ARs", "ARm", "ARl")
        if iou_type == "keypoints":
            names = _KEYPOINT_RECALLS
        recalls = coco_eval.stats[-len(names) :]
        for name, recall in zip(names, recalls, strict=True):
            results[name] = float(100 * recall) if recall >= 0 else math.nan
        if class_names is not None and len(class_names) == 1:  # which Detectron2 leaves out
            results[f"AP-{class_names[0]}"] = results["AP"]
        return results


def encode_masks(instances: Instances) -> tuple[Instances, list[dict]]:
    """Instances without their masks, and the masks as COCO's compressed RLE.

    Args:
        instances: on any device. ``pred_masks`` are bool (N, H, W), or ``ROIMasks`` of
            ``pred_boxes``, which are encoded without being pasted. Without masks there is no RLE.
    """
    if not instances.has("pred_masks"):
        return instances, []
    others = Instances(instances.image_size, **instances.get_fields())
    others.remove("pred_masks")
    if not isinstance(instances.pred_masks, ROIMasks):
        return others, list(_encode(instances.pred_masks))
    parts = mask_parts(instances.to("cpu"))
    return others, [encode_part(*part, *instances.image_size) for part in parts]


def _encode(masks: torch.Tensor) -> Iterator[dict]:
    """RLE of masks (N, H, W), bool, on any device."""
    some = max(1, _ENCODED_PIXELS // max(1, masks[:1].numel()))
    for part in masks.split(some) if len(masks) else ():
        columns = part.to(torch.uint8).transpose(1, 2).contiguous().cpu().numpy()
        for rle in hotcoco.mask.encode(columns.transpose(2, 1, 0)):  # (H, W, N), Fortran order
            yield {**rle, "counts": rle["counts"].decode()}


def masks_for(evaluators: Sequence[DatasetEvaluator], model: nn.Module) -> AbstractContextManager:
    """:func:`.unpasted_masks` of a model if all evaluators are ``CocoEvaluator``s."""
    known = all(type(evaluator) is CocoEvaluator for evaluator in evaluators)
    return unpasted_masks(model) if known else nullcontext()


def build_coco_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> CocoEvaluator:
    """The evaluator for the heads of a config, with the implementation ``RESNEST.EVALUATOR``.

    It prints COCO's 12 numbers of each task: ``bbox``, and ``segm`` or ``keypoints`` where the
    config has such a head. Detections go to ``output_folder``, by default ``OUTPUT_DIR/inference``.
    As COCO defines it, 100 detections of an image and category count, also where
    ``TEST.DETECTIONS_PER_IMAGE`` is larger.
    """
    check_choice("RESNEST.EVALUATOR", cfg.RESNEST.EVALUATOR, IMPLEMENTATIONS)
    tasks = ["bbox"]
    if cfg.MODEL.MASK_ON:
        tasks.append("segm")
    if cfg.MODEL.KEYPOINT_ON:
        tasks.append("keypoints")
    return CocoEvaluator(
        dataset_name,
        tasks=tuple(tasks),
        output_dir=output_folder or os.path.join(cfg.OUTPUT_DIR, "inference"),
        implementation=cfg.RESNEST.EVALUATOR,
        kpt_oks_sigmas=tuple(cfg.TEST.KEYPOINT_OKS_SIGMAS),
    )

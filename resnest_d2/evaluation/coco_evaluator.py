"""COCO metrics for the tasks that a config's heads have, and their JSON file."""

import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path

import hotcoco
import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.structures import Instances, ROIMasks
from detectron2.utils.file_io import PathManager

from ..data.check.normalise import given_ids
from ..errors import check_choice
from ..files import writing
from ..modeling.box_masks import encode_part, mask_parts, unpasted_masks
from ..text import printable
from .coco_metrics import IMPLEMENTATIONS, evaluate_results
from .ground_truth import GroundTruth

__all__ = [
    "DATA",
    "RESULTS",
    "CocoEvaluator",
    "build_coco_evaluator",
    "encode_masks",
    "masks_for",
    "results_json",
    "write_data_file",
    "write_results",
]

logger = logging.getLogger(__name__)

RESULTS = "coco_instances_results.json"
DATA = "data.json"
"""Files of an evaluation: COCO's results, and the names of the files that they belong to."""

_ENCODED_PIXELS = 2**25  # of the masks that are encoded at once
_RECALLS = {"keypoints": ("AR", "AR50", "AR75", "ARm", "ARl")}  # after 5 APs


class CocoEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator with a choice of implementation, and numbers where it has none.

    - A model without a detection has AP 0. Detectron2 leaves the evaluation out then and reports
      NaN, which no comparison, no "best checkpoint" and no reader of a log can use.
    - Beside Detectron2's metrics it reports COCO's recalls (``AR1``, ``AR10``, ``AR100``, ``ARs``,
      ``ARm``, ``ARl``; of keypoints ``AR``, ``AR50``, ``AR75``, ``ARm``, ``ARl``), and
      ``AP-name`` also for the class of a data set with one.
    - The numbers do not depend on how images are shared out to processes. An image that a sampler
      gave twice, as PyTorch's does to fill up the last process's share, counts once.

    Args:
        dataset_name, tasks, distributed, output_dir, allow_cached_coco: see Detectron2's.
        implementation: ``"hotcoco"``, or ``"pycocotools"``, the slow reference.
        max_dets_per_image: detections of an image and category that count; None for COCO's 100.
        kpt_oks_sigmas: of the keypoints; empty for COCO's 17 of a person.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: tuple[str, ...] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        implementation: str = "hotcoco",
        max_dets_per_image: int | None = None,
        kpt_oks_sigmas: tuple[float, ...] = (),
        allow_cached_coco: bool = True,
    ):
        check_choice("implementation", implementation, IMPLEMENTATIONS)
        super().__init__(
            dataset_name,
            tasks,
            distributed,
            output_dir,
            use_fast_impl=False,
            max_dets_per_image=max_dets_per_image,
            kpt_oks_sigmas=kpt_oks_sigmas,
            allow_cached_coco=allow_cached_coco,
        )
        self._implementation = implementation

    @cached_property
    def _truth(self) -> GroundTruth:
        return GroundTruth(self._coco_api, name=self._metadata.json_file)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Detectron2's, with :func:`encode_masks`: the same bytes in less time and memory."""
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
                write_data_file(self._output_dir, self._metadata.json_file, root)
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
        """Results with the ids of the data set's own file, where others took their place."""
        images, categories = given_ids(self._coco_api.imgs), given_ids(self._coco_api.cats)
        if not images and not categories:
            return results
        return [
            result
            | {
                "image_id": images.get(result["image_id"], result["image_id"]),
                "category_id": categories.get(result["category_id"], result["category_id"]),
            }
            for result in results
        ]

    def _class_names(self) -> list[str] | None:
        """Names of the classes, with the category's id where two have one name."""
        names = self._metadata.get("thing_classes")
        if names is None or len(set(names)) == len(names):
            return names
        numbers = self._metadata.get("thing_dataset_id_to_contiguous_id", {})
        ids = {index: category_id for category_id, index in numbers.items()}
        return [
            f"{name} (id {ids.get(index, index)})" if names.count(name) > 1 else name
            for index, name in enumerate(names)
        ]

    def _results_in_order(self, predictions) -> list[dict]:
        """Results with the data set's category ids, in the order of its images, each image once."""
        by_image = {}
        for prediction in predictions:
            by_image.setdefault(prediction["image_id"], prediction)
        if len(by_image) < len(predictions):
            logger.warning(
                f"{len(predictions) - len(by_image)} of {len(predictions)} predictions are for an "
                "image that had one already: each image's first counts"
            )
        known = self._coco_api.imgs
        unknown = [i for i in by_image if i not in known]
        if unknown:
            raise ValueError(
                f"predictions for images {unknown[:5]}, which {self._metadata.json_file} does not "
                "have: were they made on another data set?"
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

    def _to_dataset_ids(self, prediction: dict) -> None:
        """Replace class indices by category ids, once: half a million new records cost seconds."""
        indices = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if not indices or prediction.get("has_dataset_ids"):
            return
        ids = {index: category_id for category_id, index in indices.items()}
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
        class_names = class_names and [printable(name) for name in class_names]  # for its table
        results = super()._derive_coco_results(coco_eval, iou_type, class_names=class_names)
        names = _RECALLS.get(
            iou_type, (*(f"AR{n}" for n in sorted(self._max_dets_per_image)), "ARs", "ARm", "ARl")
        )
        recalls = coco_eval.stats[-len(names) :]
        for name, recall in zip(names, recalls, strict=True):
            results[name] = float(100 * recall) if recall >= 0 else math.nan
        if class_names is not None and len(class_names) == 1:  # Detectron2 has no table then
            results[f"AP-{class_names[0]}"] = results["AP"]
        return results


def encode_masks(instances: Instances) -> tuple[Instances, list[dict]]:
    """Instances without their masks, and the masks as COCO's compressed run lengths.

    Args:
        instances: on any device. ``pred_masks`` are bool (N, H, W), or ``ROIMasks`` of
            ``pred_boxes``, which are encoded inside of their boxes; without masks no run lengths.
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
    """COCO's run lengths of masks (N, H, W), bool, on any device."""
    some = max(1, _ENCODED_PIXELS // max(1, masks[:1].numel()))
    for part in masks.split(some) if len(masks) else ():
        columns = part.to(torch.uint8).transpose(1, 2).contiguous().cpu().numpy()
        for rle in hotcoco.mask.encode(columns.transpose(2, 1, 0)):  # (H, W, N), as Fortran has it
            yield {**rle, "counts": rle["counts"].decode()}


def masks_for(evaluators: Sequence[DatasetEvaluator], model: nn.Module) -> AbstractContextManager:
    """:func:`.unpasted_masks` of a model if a ``CocoEvaluator`` alone sees what it finds."""
    known = all(type(evaluator) is CocoEvaluator for evaluator in evaluators)
    return unpasted_masks(model) if known else nullcontext()


def build_coco_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> CocoEvaluator:
    """The evaluator for a config's heads, on the implementation that ``RESNEST.EVALUATOR`` names.

    It prints the 12 COCO numbers of each task: ``bbox``, and ``segm`` or ``keypoints`` where the
    config has such a head. Detections go to ``output_folder``, else to ``OUTPUT_DIR/inference``.
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


def write_results(results: dict, path: str | os.PathLike) -> None:
    """Write :func:`results_json`. The file appears under its name only when it is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path, "w") as file:
        file.write(results_json(results) + "\n")


def results_json(results: dict) -> str:
    """Metrics as JSON: ``{"bbox": {"AP": …}, "panoptic_seg": {"PQ": …}, …}``, on 0-100.

    A number that does not exist (AP of small objects where there are none) becomes ``null``.
    """

    def plain(value):
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        number = float(value)
        return number if math.isfinite(number) else None

    return json.dumps(plain(results), indent=2)


def write_data_file(folder: str | os.PathLike, json_file: str, image_root: str) -> None:
    """Name the data that the results in a folder belong to."""
    record = {"json_file": os.path.abspath(json_file), "image_root": os.path.abspath(image_root)}
    with writing(Path(folder, DATA), "w") as file:
        file.write(json.dumps(record, indent=2) + "\n")

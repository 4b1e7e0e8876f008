"""The evaluators that a config needs."""

import os

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, SemSegEvaluator

from .classification_evaluator import ClassificationEvaluator
from .coco_evaluator import build_coco_evaluator
from .panoptic_evaluator import PanopticEvaluator
from .sem_seg_evaluator import SegmentationEvaluator, read_labels_as

SEMANTIC_ARCHITECTURES = ("SemanticSegmentor", "PanopticFPN")


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluator:
    """The evaluators for ``MODEL.META_ARCHITECTURE`` and the heads of a config.

    - ``classification`` (top1, top5, class_mean): ImageClassifier, which has no others
    - ``bbox`` (AP, AP50, …): every other architecture but SemanticSegmentor
    - ``segm``, ``keypoints``: the same numbers, with ``MODEL.MASK_ON``, ``MODEL.KEYPOINT_ON``
    - ``sem_seg`` (mIoU, fwIoU, mACC, pACC): SemanticSegmentor, PanopticFPN
    - ``panoptic_seg`` (PQ, SQ, RQ, and ``_th``, ``_st``): PanopticFPN

    All on 0-100. Detections, semantic maps and the counts of :mod:`.image_confusions` go to
    ``output_folder``, by default ``OUTPUT_DIR/inference``.
    """
    output_folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture == "ImageClassifier":
        return ClassificationEvaluator(dataset_name, output_folder)
    evaluators = []
    if architecture != "SemanticSegmentor":
        evaluators.append(build_coco_evaluator(cfg, dataset_name, output_folder))
    if architecture == "SemanticSegmentor":
        evaluators.append(SegmentationEvaluator(dataset_name, output_folder))
    if architecture == "PanopticFPN":
        evaluators.append(
            SemSegEvaluator(
                dataset_name, output_dir=output_folder, sem_seg_loading_fn=read_labels_as
            )
        )
        evaluators.append(PanopticEvaluator(dataset_name))
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)

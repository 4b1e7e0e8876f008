"""A user's own COCO files in place of the config's data sets."""

import logging

from detectron2.config import CfgNode

from ..data import CocoSummary, check_coco_json, check_same_classes, register_coco
from .request import RunRequest

__all__ = ["use_own_data"]

logger = logging.getLogger(__name__)


def use_own_data(cfg: CfgNode, request: RunRequest) -> None:
    """Register the request's files; take class count, keypoints and mask format from them."""
    pairs = request.train + request.val
    if not pairs:
        return
    summaries = [check_coco_json(*pair) for pair in pairs]
    for summary in summaries[1:]:
        check_same_classes(summaries[0], summary)
    if request.train:
        cfg.DATASETS.TRAIN = tuple(register_coco(*pair) for pair in request.train)
        cfg.DATASETS.TEST = ()  # the config's own would have other classes
    if request.val:
        cfg.DATASETS.TEST = tuple(register_coco(*pair) for pair in request.val)
    classes = len(summaries[0].class_names)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.MODEL.RETINANET.NUM_CLASSES = classes
    if cfg.MODEL.MASK_ON:
        for pair, summary in zip(request.train, summaries, strict=False):
            if not summary.has_masks:
                raise ValueError(
                    f"{pair[0]} has no 'segmentation', and MODEL.MASK_ON is True: choose a config "
                    "without masks (faster_rcnn_…, cascade_rcnn_…)"
                )
            if summary.has_rle and cfg.INPUT.MASK_FORMAT != "bitmask":
                logger.info(f"{pair[0]} has masks in RLE: INPUT.MASK_FORMAT is now 'bitmask'")
                cfg.INPUT.MASK_FORMAT = "bitmask"
    if cfg.MODEL.KEYPOINT_ON:
        _use_own_keypoints(cfg, summaries)


def _use_own_keypoints(cfg: CfgNode, summaries: list[CocoSummary]) -> None:
    """Refuse files that keypoints cannot be learned or scored from, and take their number."""
    first = summaries[0]
    for summary in summaries:
        if summary.without_keypoints:
            raise ValueError(
                f"{summary.without_keypoints} of the {summary.num_annotations} annotations of "
                f"{summary.json_file} lack 'keypoints' or 'num_keypoints', and MODEL.KEYPOINT_ON "
                "is True"
            )
        if summary.keypoint_names != first.keypoint_names:
            raise ValueError(
                f"the keypoints of {first.json_file} and {summary.json_file} differ: "
                f"{first.keypoint_names} and {summary.keypoint_names}"
            )
    number = len(first.keypoint_names)
    if number and cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS != number:
        logger.info(f"The data has {number} keypoints: ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is now that")
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = number

"""Checks that data sets have what a config's heads need: masks, keypoints, numbers of classes.

Detectron2 fails at the first batch, or after the training, by an assertion or an index error.
"""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog

from ...evaluation import SEMANTIC_ARCHITECTURES

_COCO_KEYPOINTS = 17  # what pycocotools has sigmas for


def check_tasks(cfg: CfgNode, train: Sequence[str], test: Sequence[str]) -> None:
    """Raise a ValueError where registered data sets do not fit a config's heads."""
    if cfg.MODEL.KEYPOINT_ON and cfg.RESNEST.CHANNELS_LAST:
        raise ValueError(
            "RESNEST.CHANNELS_LAST must be False where MODEL.KEYPOINT_ON is True: Detectron2's "
            "keypoint loss takes no other memory format than the default one"
        )
    head = cfg.MODEL.SEM_SEG_HEAD
    semantic = cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor"
    if semantic and head.NAME == "DeepLabV3Head" and len(head.IN_FEATURES) != 1:
        raise ValueError(
            "MODEL.SEM_SEG_HEAD.IN_FEATURES must be one feature map, such as ['res5'], for "
            f"DeepLabV3Head, got {head.IN_FEATURES}"
        )
    for name in dict.fromkeys((*train, *test)):
        metadata = MetadataCatalog.get(name)
        if cfg.MODEL.META_ARCHITECTURE in SEMANTIC_ARCHITECTURES:
            _check_stuff(cfg, name, metadata)
        if cfg.MODEL.META_ARCHITECTURE == "PanopticFPN" and name in test:
            if not metadata.get("panoptic_json"):
                raise ValueError(_needs(cfg, name, "panoptic annotations to be evaluated on"))
        if cfg.MODEL.KEYPOINT_ON:
            _check_keypoints(cfg, name, metadata)
    sigmas = len(cfg.TEST.KEYPOINT_OKS_SIGMAS)
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if cfg.MODEL.KEYPOINT_ON and test and (sigmas or _COCO_KEYPOINTS) != keypoints:
        raise ValueError(
            f"TEST.KEYPOINT_OKS_SIGMAS must have {keypoints} values, one per keypoint: the "
            f"tolerances of the object keypoint similarity, as a share of the object's size (COCO "
            f"takes 0.025 to 0.107). Got {sigmas or 'none, which means the 17 of a COCO person'}"
        )


def check_test_augmentation(cfg: CfgNode) -> None:
    """Raise a ValueError where Detectron2 has no test-time augmentation for a config's model."""
    if not cfg.TEST.AUG.ENABLED:
        return
    for key, value, allowed in (
        ("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, "GeneralizedRCNN"),
        ("MODEL.KEYPOINT_ON", cfg.MODEL.KEYPOINT_ON, False),
        ("MODEL.LOAD_PROPOSALS", cfg.MODEL.LOAD_PROPOSALS, False),
    ):
        if value != allowed:
            raise ValueError(
                f"TEST.AUG.ENABLED must be False where {key} is {value}: test-time augmentation is "
                f"for boxes and masks of a GeneralizedRCNN"
            )


def _check_stuff(cfg: CfgNode, name: str, metadata: Metadata) -> None:
    stuff = metadata.get("stuff_classes")
    if stuff is None:
        raise ValueError(_needs(cfg, name, "semantic masks"))
    classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if classes != len(stuff):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES must be {len(stuff)}, the number of stuff classes of "
            f"{name}, got {classes}"
        )


def _needs(cfg: CfgNode, name: str, what: str) -> str:
    return (
        f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} needs {what}, and data set {name} "
        f"has none: choose one like coco_2017_val_panoptic_separated, or register files of your "
        f"own with resnest_d2.data.register_coco_panoptic"
    )


def _check_keypoints(cfg: CfgNode, name: str, metadata: Metadata) -> None:
    names = metadata.get("keypoint_names")
    if not names:
        raise ValueError(
            f"MODEL.KEYPOINT_ON is True, and data set {name} names no keypoints: in a COCO file "
            f"of your own, each category lists them under 'keypoints', all the same ones"
        )
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if keypoints != len(names):
        raise ValueError(
            f"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS must be {len(names)}, the number of keypoints "
            f"of {name}, got {keypoints}"
        )

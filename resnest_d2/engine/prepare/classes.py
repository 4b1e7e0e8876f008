"""Classes of data and model: their number and their names."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ...checkpoint import RECORD_KEY
from ...config import get_value
from ...model_zoo.trained import HEADS, class_names_of, head_key, head_of
from ...text import printable
from .given_values import GivenValues
from .request import RunRequest

logger = logging.getLogger(__name__)


def use_classes(cfg: CfgNode, request: RunRequest, given: GivenValues) -> None:
    """Take the number of classes from data that the user named in place of the config's.

    That is: own files, or ``DATASETS.TRAIN`` in ``opts``. Other data sets leave the config's
    number as it is.

    Raises:
        ValueError: ``opts`` give a number that named data do not have, or the model has fewer
            classes than its training data.
    """
    data_sets = cfg.DATASETS.TEST if request.eval_only else cfg.DATASETS.TRAIN
    if not data_sets or not (classes := len(class_names_of(data_sets[0], cfg))):
        return
    node = head_key(cfg)
    key, value = f"{node}.NUM_CLASSES", head_of(cfg).NUM_CLASSES
    data = MetadataCatalog.get(data_sets[0]).get("json_file", data_sets[0])
    named = request.train or request.val
    named = named or (given.in_opts("DATASETS.TRAIN") and not request.eval_only)
    if named and not given.in_opts(key):
        if value != classes:
            logger.info(f"{key} is now {classes}, the number of classes of {data}")
        detects = node in ("MODEL.ROI_HEADS", "MODEL.RETINANET")
        for name in ("MODEL.ROI_HEADS", "MODEL.RETINANET") if detects else (node,):
            get_value(cfg, name).NUM_CLASSES = classes
    elif value < classes and (named or not request.eval_only):
        if cfg.MODEL.META_ARCHITECTURE in HEADS:
            raise ValueError(
                f"{key} must be at least {classes}, the number of classes of {data}, got {value}"
            )
    elif named and value > classes:
        raise ValueError(
            f"{key} must be {classes}, the number of classes of {data}, got {value}: detections "
            "of a class that the data does not have cannot be evaluated. Leave the key out"
        )


def check_class_order(
    cfg: CfgNode, data_sets: Sequence[str], weights: object, metadata: Mapping[str, Any]
) -> None:
    """Compare the classes of data with those that a checkpoint's record names, by number.

    Args:
        metadata: what lies beside the checkpoint's weights.

    Raises:
        ValueError: a class has another number: results would get wrong names.
    """
    record = metadata.get(RECORD_KEY)
    known = record.get("class_names") if isinstance(record, dict) else None
    for name in data_sets:
        found = class_names_of(name, cfg)
        if not known or not found or found == known or len(found) != len(known):
            continue  # another number of classes is judged where weights are matched
        before, now = (printable(", ".join(map(str, names)), 300) for names in (known, found))
        text = f"{weights} was trained on the classes {before}, and {name} has {now}"
        if any(ours != theirs and ours in found for ours, theirs in zip(known, found, strict=True)):
            raise ValueError(f"{text}: a class must have the same number in both")
        logger.warning(f"{text}: class numbers are taken for the same")


def check_same_classes(cfg: CfgNode, weights: str, class_names: Sequence[str]) -> None:
    """Refuse test data with other classes than a model's: its results would get wrong names."""
    for name in cfg.DATASETS.TEST:
        found = class_names_of(name, cfg)
        if found and class_names and found != class_names:
            data = MetadataCatalog.get(name).get("json_file", name)
            ours, theirs = (printable(", ".join(names), 1000) for names in (class_names, found))
            raise ValueError(
                f"{weights} was trained on the classes {ours}, and {data} has {theirs}: they must "
                "be the same, in the order of their ids"
            )

"""Ground truth as a model would say it."""

import numpy as np
import torch
from pycocotools import mask as mask_util

from detectron2.structures import Boxes, BoxMode, Instances


def true_instances(record: dict) -> Instances:
    """A dataset record's objects with score 1: boxes, masks (RLE in the record), keypoints."""
    annotations = record["annotations"]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    masks = [mask_util.decode(a["segmentation"]).astype(bool) for a in annotations]
    keypoints = np.array([a["keypoints"] for a in annotations])
    return Instances(
        (record["height"], record["width"]),
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        pred_classes=torch.tensor([a["category_id"] for a in annotations]),
        scores=torch.ones(len(annotations)),
        pred_masks=torch.from_numpy(np.stack(masks)),
        pred_keypoints=torch.tensor(keypoints, dtype=torch.float32).unflatten(1, (-1, 3)),
    )

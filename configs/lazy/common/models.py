"""The four R-CNN families of the YAML recipes: Detectron2's own models, with a ResNeSt-50.

What is set here is what Base-RCNN-FPN.yaml, Base-RCNN-FPN-ResNeSt.yaml, Base-Cascade.yaml and
Base-Mask.yaml set; the tests hold both versions equal.
"""

from detectron2.config import LazyCall as L

from resnest_d2 import ResNeSt
from resnest_d2.checkpoint.statistics import DETECTOR
from resnest_d2.config import load_stock_lazy_config


def _rcnn(file: str, *, masks: bool):
    model = load_stock_lazy_config(f"common/models/{file}.py").model
    model.update(pixel_mean=DETECTOR.mean, pixel_std=DETECTOR.std, input_format=DETECTOR.format)
    model.backbone.bottom_up = L(ResNeSt)(
        depth=50, norm="SyncBN", freeze_at=2, out_features=["res2", "res3", "res4", "res5"]
    )
    model.backbone.norm = "SyncBN"
    heads = model.roi_heads
    for box_head in heads.box_heads if "box_heads" in heads else [heads.box_head]:
        box_head.update(conv_dims=[256] * 4, fc_dims=[1024], conv_norm="SyncBN")
    if masks:
        heads.mask_head.conv_norm = "SyncBN"
    else:
        for key in ("mask_in_features", "mask_pooler", "mask_head"):
            heads.pop(key)
    return model


def _cascade(*, masks: bool):
    model = _rcnn("cascade_rcnn", masks=masks)
    model.proposal_generator.post_nms_topk = (2000, 1000)  # training, inference
    return model


faster_rcnn = _rcnn("mask_rcnn_fpn", masks=False)
mask_rcnn = _rcnn("mask_rcnn_fpn", masks=True)
cascade_rcnn = _cascade(masks=False)
cascade_mask_rcnn = _cascade(masks=True)

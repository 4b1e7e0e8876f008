"""Runs of ``sample_mask_rcnn_resnest14_fpn`` that are a matter of seconds."""

from resnest_d2.engine import RunRequest

# The smallest Mask R-CNN that has every part, in float32.
TINY = (
    *("MODEL.DEVICE", "cpu", "SEED", "3", "DATALOADER.NUM_WORKERS", "0"),
    *("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.RESNETS.WIDTH_PER_GROUP", "16"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "16", "MODEL.RESNETS.STEM_WIDTH", "8"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "0"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
    *("RESNEST.AMP_DTYPE", "", "RESNEST.FREEZE_NORM.ITER", "0"),
)

# A narrow ResNeSt-14.
SMALL_NETWORK = (
    *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", "14"),
    *("MODEL.RESNETS.STEM_WIDTH", "8", "MODEL.RESNETS.WIDTH_PER_GROUP", "8"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "32"),
)


def tiny_request(data: dict, folder, *opts: str, **kwargs) -> RunRequest:
    """A request to train and evaluate it.

    Args:
        data: as ``sample_set`` returns it.
        folder: the run's.
        opts: after ``TINY``.
        kwargs: the request's other fields.
    """
    kwargs = {"train": (data["train"],), "val": (data["val"],), **kwargs}
    opts = (*TINY, "OUTPUT_DIR", str(folder), *opts)
    return RunRequest("sample_mask_rcnn_resnest14_fpn", opts, **kwargs)

"""A checkpoint's config may have what real models have, and nothing that takes the machine."""

import re
from pathlib import Path

import pytest

import detectron2
from detectron2.config import get_cfg

from resnest_d2.config import add_resnest_config, flat_values, get_config, list_configs, set_value
from resnest_d2.model_zoo.config_limits import check_limits
from resnest_d2.model_zoo.trained import recorded_config

ANCHORS = "MODEL.ANCHOR_GENERATOR"
REFUSED = {
    "INPUT.MIN_SIZE_TEST": (None, -5, 100_000),
    "INPUT.MAX_SIZE_TEST": (None,),
    "INPUT.FORMAT": (None,),
    "RESNEST.INTENSITY.RANGE": (None, [None, 1]),
    "DATASETS.TRAIN": (None,),
    "TEST.DETECTIONS_PER_IMAGE": (None, -2, 10**7),
    "TEST.AUG.MIN_SIZES": ([800, None], [800, "a"], [10**6], [400] * 31, []),
    "DATALOADER.NUM_WORKERS": (-1, 10**6),
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": (None,),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": (None, -1, 10**6),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (150,),
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": (0, 1000),
    "MODEL.ROI_HEADS.NUM_CLASSES": (None, 10**9),
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": ([0.5] * 2500,),
    "MODEL.RPN.BBOX_REG_WEIGHTS": (["a"] * 4,),
    "MODEL.LOAD_PROPOSALS": (True,),  # Detectron2 unpickles them
    "MODEL.PROPOSAL_GENERATOR.NAME": ("PrecomputedProposals",),
    f"{ANCHORS}.SIZES": ([[1] * 3000], [8] * 3000, [[8], [8] * 3000]),
}


def defaults():
    cfg = get_cfg()
    add_resnest_config(cfg)
    return cfg


@pytest.mark.parametrize("key", REFUSED)
def test_it_is_refused_with_the_file_the_key_and_what_is_allowed(key):
    for value in REFUSED[key]:
        cfg = defaults()
        set_value(cfg, key, value)
        with pytest.raises(
            ValueError, match=rf"the config in x.pth.*{re.escape(key)}.* must "
        ) as e:
            recorded_config({"config": cfg.dump()}, Path("x.pth"))
        assert str(e.value).isprintable() and len(str(e.value)) < 400


def test_null_may_stand_for_no_text_and_in_keys_of_the_schedule():
    cfg = defaults()
    for key in ("MODEL.WEIGHTS", "MODEL.FPN.NORM", "SOLVER.WEIGHT_DECAY_NORM"):
        set_value(cfg, key, None)
    recorded = recorded_config({"config": cfg.dump()}, Path("x.pth"))
    assert recorded.MODEL.WEIGHTS is recorded.SOLVER.WEIGHT_DECAY_NORM is None


def test_every_config_of_detectron2_and_of_this_package_is_allowed():
    stock = Path(detectron2.__file__).parent / "model_zoo" / "configs"
    files = sorted(stock.rglob("*.yaml"))
    assert len(files) > 80
    for file in files:
        cfg = defaults()
        cfg.merge_from_file(str(file), allow_unsafe=True)  # lists of sizes, computed by eval
        if cfg.MODEL.LOAD_PROPOSALS:  # Fast R-CNN
            continue
        check_limits(flat_values(cfg), flat_values(defaults()))
    for name in list_configs():
        check_limits(flat_values(get_config(name)), flat_values(defaults()))

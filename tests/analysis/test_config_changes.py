"""What two configs differ in, and what a comparison of backbones should not differ in."""

from resnest_d2 import get_config
from resnest_d2.analysis.config_changes import config_changes, network_changes, recipe_changes


def test_the_paired_recipes_differ_in_their_backbones_alone():
    first, second = get_config("mask_rcnn_resnet50_fpn"), get_config("mask_rcnn_resnest50_fpn")
    names = ("build_resnet_fpn_backbone", "build_resnest_fpn_backbone")
    assert config_changes(first, second)["MODEL.BACKBONE.NAME"] == names
    assert network_changes(first, second) == {
        "MODEL.BACKBONE.NAME": names,
        "MODEL.RESNETS.STRIDE_IN_1X1": (True, False),
    }
    assert recipe_changes(first, second) == {}


def test_a_config_does_not_differ_from_itself_nor_lists_from_tuples():
    config = get_config("mask_rcnn_resnest50_fpn")
    other = config.clone()
    other.INPUT.MIN_SIZE_TRAIN = list(config.INPUT.MIN_SIZE_TRAIN)
    assert config_changes(config, other) == {}


def test_keys_that_one_lacks_are_none():
    config = get_config("mask_rcnn_resnest50_fpn")
    older = config.clone()
    del older.RESNEST["ACCUMULATE"]
    assert config_changes(config, older) == {"RESNEST.ACCUMULATE": (1, None)}


def test_what_changes_no_result_is_no_other_recipe():
    config = get_config("sample_mask_rcnn_resnest14_fpn")
    changed = [
        "SEED",
        "4",
        "OUTPUT_DIR",
        "x",
        "DATALOADER.NUM_WORKERS",
        "3",
        "SOLVER.STEPS",
        "(7,)",
    ]
    other = get_config("sample_mask_rcnn_resnest14_fpn", changed)
    assert set(config_changes(config, other)) == set(changed[::2])
    assert list(recipe_changes(config, other)) == ["SOLVER.STEPS"]


def test_weights_on_one_side_alone_are_another_recipe():
    configs = [
        get_config("mask_rcnn_resnest50_fpn", ["MODEL.WEIGHTS", weights])
        for weights in ("", "a.pth", "b.pth")
    ]
    assert recipe_changes(*configs[:2]) == {"MODEL.WEIGHTS": ("", "a.pth")}
    assert recipe_changes(*configs[1:]) == {}

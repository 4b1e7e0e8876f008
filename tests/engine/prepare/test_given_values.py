"""Which values count as given: in files, a base first, and in opts."""

from resnest_d2.config import get_config, read_config
from resnest_d2.engine.prepare.given_values import GivenValues


def test_the_last_layer_that_states_a_key_wins_and_defaults_are_below_all(tmp_path):
    (tmp_path / "base.yaml").write_text("SOLVER: {IMS_PER_BATCH: 8, BASE_LR: 1}\n")
    (tmp_path / "mine.yaml").write_text("_BASE_: base.yaml\nSOLVER: {IMS_PER_BATCH: '4'}\n")
    given = GivenValues(read_config(tmp_path / "mine.yaml", ["SOLVER.MAX_ITER", "9"])[1])
    keys = [f"SOLVER.{key}" for key in ("BASE_LR", "IMS_PER_BATCH", "MAX_ITER", "GAMMA")]
    assert [given.layer(key) for key in keys] == [0, 1, 2, -1] and given.opts == 2
    assert [given.in_opts(key) for key in keys] == [False, False, True, False]
    assert [given.value(key) for key in keys] == [1.0, 4, 9, 0.1]
    assert [given.value("SOLVER.IMS_PER_BATCH", layer) for layer in (-1, 0, 1)] == [16, 8, 4]


def test_all_values_of_a_config_are_given_below_opts():
    cfg = get_config("mask_rcnn_resnest50_fpn")
    given = GivenValues(read_config(cfg, ["SOLVER.BASE_LR", 1])[1])
    assert (given.layer("SOLVER.GAMMA"), given.layer("SOLVER.BASE_LR")) == (0, 1)
    assert given.in_opts("SOLVER.BASE_LR") and not given.in_opts("SOLVER.GAMMA")

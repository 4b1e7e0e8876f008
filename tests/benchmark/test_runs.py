"""What the detectors of configs cost: what is counted, at which size; no times."""

import pytest

from detectron2.modeling import build_model

from resnest_d2 import ResNeSt, get_config
from resnest_d2.benchmark import count_params, measure, measure_runs

SAMPLE = "sample_mask_rcnn_resnest14_fpn"


def test_counts_are_those_of_the_detector_and_of_its_backbone():
    opts = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "160"]
    config = get_config("mask_rcnn_resnest50_fpn", opts)
    before = config.dump()
    (cost,) = measure_runs({"a": config}, image_size=(120, 160), runs=0).values()
    assert config.dump() == before
    assert cost.size == (160, 213)
    config.MODEL.BACKBONE.FREEZE_AT = 0
    assert cost.params == count_params(build_model(config))
    (backbone,) = measure(["resnest50"], size=(160, 224), runs=0)  # padded to 32
    assert cost.multiply_adds == backbone.multiply_adds
    assert cost.backbone_params == count_params(ResNeSt.from_variant("resnest50"))
    assert cost.latency_ms == () and cost.peak is None


def test_detectors_run_in_turn():
    configs = {
        "larger": get_config(SAMPLE, ["INPUT.MIN_SIZE_TEST", "128"]),
        "as it is": get_config(SAMPLE, ["INPUT.MIN_SIZE_TEST", "0"]),
    }
    costs = measure_runs(configs, image_size=(64, 96), runs=3)
    larger, same = costs.values()
    assert (list(costs), larger.name) == (list(configs), "larger")
    assert (larger.size, same.size) == ((107, 160), (64, 96))  # MAX_SIZE_TEST is 160
    assert larger.multiply_adds > same.multiply_adds
    assert len(larger.latency_ms) == 3 and larger.ratios == (1.0, 1.0, 1.0)
    assert same.ratios[1] == larger.latency_ms[1] / same.latency_ms[1]
    assert measure_runs(configs, image_size=(64, 96), runs=1, reference="as it is")[
        "as it is"
    ].ratios == (1.0,)


@pytest.mark.parametrize("name", ["retinanet_resnest50_fpn", "fcn_resnest50_ade20k"])
def test_other_families_are_measured_too(name):
    config = get_config(name, ["INPUT.MIN_SIZE_TEST", "64"])
    (cost,) = measure_runs({"a": config}, image_size=(64, 64), runs=1).values()
    assert cost.size == (64, 64) and len(cost.latency_ms) == 1


def test_impossible_arguments_are_refused():
    configs = {"a": get_config(SAMPLE)}
    with pytest.raises(ValueError, match=r"the reference must be one of \('a',\), got 'b'"):
        measure_runs(configs, reference="b")
    with pytest.raises(ValueError, match="runs must not be negative: got .*-1"):
        measure_runs(configs, runs=-1)

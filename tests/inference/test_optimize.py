import copy
import logging
import os
import time

import pytest
import torch
from detections import assert_same_detections
from detectors import FAMILIES, image, small_detector
from segmentors import HEADS, small_segmentor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image
from detectron2.modeling import build_model
from detectron2.utils.env import TORCH_VERSION

from resnest_d2 import ResNeSt, get_config, optimize_for_inference
from resnest_d2.modeling.windows import WindowedSegmentor

TOLERANCES = {"scores": 1e-4, "boxes": 0.01, "masks": 1e-3}
SIZES = ((256, 320), (320, 256), (256, 256), (256, 384))  # the smallest feature maps are 2x2


@pytest.mark.parametrize("family", FAMILIES)
def test_optimised_detector_detects_the_same(family):
    model = small_detector(family)
    optimised = optimize_for_inference(model, dtype=torch.float32, compile=False)
    with torch.no_grad():
        for size in SIZES:
            inputs = [image(*size), image(*size)]
            for expected, actual in zip(model(inputs), optimised(inputs), strict=True):
                assert len(expected["instances"]) > 5
                assert_same_detections(actual["instances"], expected["instances"], **TOLERANCES)
                if "sem_seg" in expected:
                    torch.testing.assert_close(
                        actual["sem_seg"], expected["sem_seg"], rtol=1e-3, atol=1e-3
                    )


@pytest.mark.parametrize("head", HEADS)
def test_optimised_segmentor_gives_the_same_logits(head):
    model = small_segmentor(head)
    optimised = optimize_for_inference(model, dtype=torch.float32, compile=False)
    assert not [module for module in optimised.modules() if isinstance(module, _BatchNorm)]
    inputs = [image(64, 97), image(64, 97) | {"height": 101, "width": 55}]
    windowed = [
        WindowedSegmentor(network, scales=(0.5, 1.0), base_size=96, window=64)
        for network in (model, optimised)
    ]
    with torch.no_grad():
        for own, fast in ((model, optimised), windowed):
            for expected, actual in zip(own(inputs), fast(inputs), strict=True):
                torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_bfloat16_leaves_the_logits_of_pixels_in_float32(head):
    model = small_segmentor(head)
    optimised = optimize_for_inference(model, dtype=torch.bfloat16, compile=False)
    with torch.no_grad():
        inputs = image()
        (expected,), (actual,) = model([inputs]), optimised([inputs])
    logits = actual["sem_seg"]
    assert logits.dtype == torch.float32
    rounded = logits.bfloat16().float() == logits
    assert rounded.float().mean() < 0.1  # computed, not only stored, in float32
    assert 0 < (logits - expected["sem_seg"]).norm() < 0.1 * expected["sem_seg"].norm()


def test_the_model_is_left_as_it_was():
    model = small_detector("mask").train()
    before = copy.deepcopy(model.state_dict())
    optimised = optimize_for_inference(model, compile=False)
    assert model.training and not optimised.training
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    model.backbone(torch.randn(2, 3, 64, 64))["p2"].sum().backward()


def test_bfloat16_parts_leave_float32_results():
    model = small_detector("mask")
    optimised = optimize_for_inference(model, dtype=torch.bfloat16, compile=False)
    inputs = image()
    with torch.no_grad():
        expected = model.backbone(model.preprocess_image([inputs]).tensor)
        seen = []
        optimised.backbone.bottom_up.register_forward_hook(lambda *args: seen.append(args[-1]))
        actual = optimised.backbone(optimised.preprocess_image([inputs]).tensor)
        instances = optimised([inputs])[0]["instances"]
    assert seen[0]["res4"].dtype == torch.bfloat16
    for name, value in actual.items():
        assert value.dtype == torch.float32
        assert 0 < (value - expected[name]).norm() < 0.05 * expected[name].norm()
    assert instances.scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("dtype", "predictions"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2],
)
def test_the_rpn_predicts_in_the_finer_of_both_dtypes(dtype, predictions):
    optimised = optimize_for_inference(small_detector("faster"), dtype=dtype, compile=False)
    head = optimised.proposal_generator.rpn_head
    assert {p.dtype for p in head.conv.parameters()} == {dtype}
    for layer in (head.objectness_logits, head.anchor_deltas):
        assert {p.dtype for p in layer.parameters()} == {predictions}
    with torch.no_grad():
        assert optimised([image()])[0]["instances"].scores.dtype == torch.float32


def test_any_network_of_tensors_is_optimised():
    model = ResNeSt.from_variant("resnest14", out_features=("res2", "res5")).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        actual = optimize_for_inference(model, dtype=torch.float32, compile=False)(x)
    for name, value in actual.items():
        assert value.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8, "bfloat16"])
def test_a_dtype_that_cannot_be_is_refused(dtype):
    with pytest.raises(ValueError, match=r"dtype must be one of torch.float32, .*got"):
        optimize_for_inference(ResNeSt.from_variant("resnest14"), dtype=dtype)


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_hardware_decides_on_the_dtype(fast, dtype, monkeypatch):
    monkeypatch.setattr("resnest_d2.inference.optimize.has_fast_bfloat16", lambda device_type: fast)
    model = optimize_for_inference(nn.Conv2d(3, 8, 3), compile=False)
    assert model.weight.dtype == dtype


def test_a_part_that_cannot_be_compiled_runs_as_it_is(caplog):
    class Undecided(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            x = self.conv(x)
            return x if x.sum() > 0 else -x  # no graph has both

    model = Undecided().eval()
    optimised = optimize_for_inference(model, dtype=torch.float32)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad(), caplog.at_level(logging.WARNING, "resnest_d2"):
        for _ in range(2):
            torch.testing.assert_close(optimised(x), model(x))
    messages = [r.message for r in caplog.records if "runs uncompiled" in r.message]
    assert len(messages) == 1 and "Undecided" in messages[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "parts"),
    [
        ("faster", 3),
        ("mask", 4),
        ("cascade", 6),
        ("keypoint", 4),
        ("RetinaNet", 2),
        ("panoptic", 5),
        *((head, 2) for head in HEADS),
    ],
)
def test_each_part_is_compiled_once_for_all_sizes(family, parts):
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    model = small_segmentor(family) if family in HEADS else small_detector(family)
    optimised = optimize_for_inference(model, dtype=torch.float32)
    with torch.inference_mode():
        for size in (SIZES[2], *SIZES):  # equal sides first: they must not be taken for one
            # One image that is this small takes PyTorch's other convolution: a second graph.
            inputs = [image(*size), image(*size)]
            for actual, expected in zip(optimised(inputs), model(inputs), strict=True):
                if family in HEADS:
                    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
                    continue
                assert_same_detections(actual["instances"], expected["instances"], **TOLERANCES)
    if family not in HEADS:
        parts -= TORCH_VERSION < (2, 4)  # all but the backbone
    assert counters["stats"]["unique_graphs"] == parts
    assert not counters["graph_break"]


@pytest.mark.slow
def test_a_network_alone_is_compiled_for_one_size_then_for_all():
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    model = ResNeSt.from_variant("resnest14").eval()
    optimised = optimize_for_inference(model, dtype=torch.float32)
    with torch.inference_mode():
        for graphs, side in ((1, 64), (1, 64), (2, 96), (2, 128)):
            x = torch.randn(1, 3, side, side + 32)
            torch.testing.assert_close(optimised(x)["res5"], model(x)["res5"], rtol=1e-3, atol=1e-3)
            assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.slow
def test_sizes_beyond_the_limit_of_graphs_run_uncompiled(monkeypatch, caplog):
    torch._dynamo.reset()
    new = hasattr(torch._dynamo.config, "recompile_limit")
    name = "recompile_limit" if new else "cache_size_limit"
    monkeypatch.setattr(torch._dynamo.config, name, 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    optimised = optimize_for_inference(model, dtype=torch.float32)
    with torch.inference_mode(), caplog.at_level(logging.WARNING, "resnest_d2"):
        for side in (8, 9, 10, 8):
            x = torch.randn(1, 3, side, side)
            torch.testing.assert_close(optimised(x), model(x))
    messages = [r.message for r in caplog.records if "at more sizes" in r.message]
    assert len(messages) == 1


@pytest.fixture
def all_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count())
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_thirty_images_of_thirty_sizes_take_one_compilation_a_part(test_data, all_cores):
    model = build_model(
        get_config(
            "mask_rcnn_resnest50_fpn",
            ("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0"),
        )
    ).eval()
    resize = T.ResizeShortestEdge([800, 800], 1333)
    inputs = {}
    for file in sorted((test_data / "coco_val_mini" / "images").glob("*.jpg")):
        pixels = read_image(str(file), "RGB")
        resized = resize.get_transform(pixels).apply_image(pixels)
        tensor = torch.from_numpy(resized.transpose(2, 0, 1).copy())
        item = {"image": tensor, "height": pixels.shape[0], "width": pixels.shape[1]}
        inputs.setdefault(pixels.shape, item)
    inputs = list(inputs.values())[:30]
    assert len(inputs) == 30
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    optimised = optimize_for_inference(model)
    times = []
    with torch.inference_mode():
        for item in inputs:
            start = time.perf_counter()
            (found,) = optimised([item])
            times.append(time.perf_counter() - start)
            assert len(found["instances"]) == 100
    later = sorted(times[1:])
    print(
        f"first image {times[0]:.1f} s, later ones {later[0]:.2f} to {later[-1]:.2f} s, "
        f"median {later[len(later) // 2]:.2f} s"
    )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4

"""Scripted, traced and compiled networks equal the eager one."""

import shutil
import subprocess
import sys
import textwrap

import pytest
import torch

from detectron2.modeling import build_backbone
from detectron2.utils.env import TORCH_VERSION

from resnest_d2 import get_config
from resnest_d2.modeling import ResNeSt

DCN = {"deform_on_per_stage": (False, True, True, True), "deform_num_groups": 2}
NETWORKS = [
    pytest.param("resnest14", {}, id="14"),
    pytest.param("resnest50", {}, id="50"),
    pytest.param("resnest50_fast_4s2x40d", {}, id="fast_4s2x40d"),
    pytest.param("resnest50_fast_1s4x24d", {}, id="fast_1s4x24d", marks=pytest.mark.slow),
    pytest.param("resnest14", {"radix": 0}, id="radix 0"),
    pytest.param("resnest14", {"deep_stem": False, "num_classes": 7}, id="7x7 stem, classifier"),
    pytest.param("resnest14", {"out_features": ("stem",)}, id="stem"),
    pytest.param("resnest14", {"norm": "GN", "freeze_at": 2}, id="GN"),
    pytest.param("resnest14", {"norm": "SyncBN"}, id="SyncBN"),
    pytest.param("resnest14", {"norm": ""}, id="no norm"),
    pytest.param("resnest14", DCN, id="dcn v1"),
    pytest.param("resnest14", {**DCN, "deform_modulated": True}, id="dcn v2"),
    pytest.param("resnest14", {**DCN, "deform_modulated": True, "radix": 0}, id="dcn v2, radix 0"),
]


def build(variant: str, options: dict) -> torch.nn.Module:
    model = ResNeSt.from_variant(variant, **options)
    for name, parameter in model.named_parameters():
        if "conv2_offset" in name:  # they start at zero
            torch.nn.init.normal_(parameter, std=0.01)
    return model.eval()


def pyramid() -> torch.nn.Module:
    """The backbone of a packaged recipe, SyncBN in ResNeSt and FPN, but smaller."""
    opts = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 14, "MODEL.FPN.OUT_CHANNELS", 32]
    cfg = get_config("mask_rcnn_resnest50_fpn", opts)
    assert cfg.MODEL.RESNETS.NORM == cfg.MODEL.FPN.NORM == "SyncBN"
    return build_backbone(cfg).eval()


def assert_equal(actual, expected):
    assert list(actual) == list(expected)
    torch.testing.assert_close(dict(actual), dict(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant, options", NETWORKS)
@torch.no_grad()
def test_scripted_equals_eager(variant, options):
    model = build(variant, options)
    scripted = torch.jit.script(model)
    for size in ((64, 64), (65, 97)):
        x = torch.randn(1, 3, *size)
        assert_equal(scripted(x), model(x))


@pytest.mark.parametrize("variant, options", NETWORKS)
@torch.no_grad()
def test_traced_equals_eager_on_other_sizes_and_batches(variant, options):
    model = build(variant, options)
    traced = torch.jit.trace(model, torch.randn(1, 3, 64, 64), strict=False)
    for shape in ((1, 3, 64, 64), (2, 3, 65, 97)):
        x = torch.randn(*shape)
        assert_equal(traced(x), model(x))


@torch.no_grad()
def test_scripted_pyramid_with_sync_bn_equals_eager():
    model, x = pyramid(), torch.randn(1, 3, 64, 96)
    assert_equal(torch.jit.script(model)(x), model(x))


def test_importing_the_package_is_all_that_scripting_needs():
    code = """
        import torch
        import resnest_d2
        torch.jit.script(resnest_d2.ResNeSt.from_variant("resnest14").eval())
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True)


needs_new_compiler = pytest.mark.skipif(
    TORCH_VERSION < (2, 5),
    reason="torch.compile of torch < 2.5",
)


@needs_new_compiler
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_pyramid_compiles_without_a_graph_break(training):
    torch._dynamo.reset()
    model, x = pyramid().train(training), torch.randn(2, 3, 64, 96)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_equal(compiled(x), model(x))


@needs_new_compiler
@pytest.mark.parametrize("variant, options", NETWORKS)
@torch.no_grad()
def test_backbones_compile_without_a_graph_break(variant, options):
    torch._dynamo.reset()
    model, x = build(variant, options), torch.randn(1, 3, 64, 64)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_equal(compiled(x), model(x))


@pytest.mark.slow
@needs_new_compiler
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@torch.no_grad()
def test_pyramid_compiled_to_machine_code_equals_eager():
    torch._dynamo.reset()
    model = pyramid()
    compiled = torch.compile(model, fullgraph=True)
    for shape in ((1, 3, 64, 96), (2, 3, 96, 64)):
        x = torch.randn(*shape)
        assert_equal(compiled(x), model(x))

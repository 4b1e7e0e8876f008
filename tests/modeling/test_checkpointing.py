"""What is computed twice equals the plain network: gradients, statistics, names; and holds less."""

import copy

import pytest
import torch
from processes import run_in_processes
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from detectron2.layers import NaiveSyncBatchNorm
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.resnet import BasicStem, ResNet

from resnest_d2.benchmark import saved_memory
from resnest_d2.errors import ArgumentError
from resnest_d2.modeling import ResNeSt
from resnest_d2.modeling.checkpointing import CheckpointedStage, checkpoint_stages, recompute_norms
from resnest_d2.modeling.norm import PortableSyncBatchNorm
from resnest_d2.modeling.resnest import Bottleneck

STAGES = ("res2", "res3", "res4", "res5")
SMALL = {"width_per_group": 16, "res2_out_channels": 16, "stem_width": 8}
DCN = {"deform_on_per_stage": (False, True, True, True), "deform_modulated": True}


def small(**options) -> ResNeSt:
    return ResNeSt.from_variant("resnest26", **{**SMALL, **options})


def pair(model: nn.Module, stages=STAGES, *, norms: bool = False) -> tuple[nn.Module, nn.Module]:
    checkpointed = copy.deepcopy(model)
    checkpoint_stages(checkpointed, stages)
    if norms:
        recompute_norms(checkpointed)
    return model, checkpointed


def step(model: nn.Module, x: torch.Tensor, dtype: torch.dtype | None = None) -> dict:
    """Gradients and state after one backward pass."""
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        outputs = model(x)
    sum(output.float().square().mean() for output in outputs.values()).backward()
    found = {f"grad {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**found, **{k: v.clone() for k, v in model.state_dict().items()}}


def assert_same(actual: dict, expected: dict):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def naive(channels: int) -> nn.Module:
    return NaiveSyncBatchNorm(channels)


def cumulative(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, momentum=None)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "GN", PortableSyncBatchNorm, naive, cumulative])
@pytest.mark.parametrize(
    ("stages", "norms"),
    [
        (STAGES, False),
        (("res3",), False),
        (("res2", "res5"), False),
        ((), True),
        (("res2", "res5"), True),
    ],
)
def test_gradients_and_running_statistics_are_bit_equal(norm, stages, norms):
    plain, checkpointed = pair(small(norm=norm).double(), stages, norms=norms)
    x = torch.randn(2, 3, 65, 64, dtype=torch.float64)
    for _ in range(2):
        assert_same(step(checkpointed, x), step(plain, x))
    if norm == "BN":
        assert plain.res3[0].conv1.norm.num_batches_tracked == 2


@pytest.mark.parametrize(
    ("stages", "norms"), [(STAGES, False), ((), True)], ids=["stages", "norms"]
)
@pytest.mark.parametrize(
    "variant",
    [
        *("deformable", "radix 0", "deformable radix 0", "four groups", "pool first"),
        *("no norm", "plain stem", "bfloat16", "channels_last", "frozen"),
    ],
)
def test_they_are_equal_with_other_features_too(variant, stages, norms):
    options = {
        "deformable": DCN,
        "radix 0": {"radix": 0},
        "deformable radix 0": {**DCN, "radix": 0},
        "four groups": {"radix": 1, "num_groups": 4},
        "pool first": {"avd_first": True},
        "no norm": {"norm": ""},
        "plain stem": {"deep_stem": False},
        "frozen": {"freeze_at": 3},
    }
    model = small(**options.get(variant, {}))
    x = torch.randn(2, 3, 64, 64)
    if variant == "channels_last":
        model, x = (item.to(memory_format=torch.channels_last) for item in (model, x))
    plain, checkpointed = pair(model, stages, norms=norms)
    dtype = torch.bfloat16 if variant == "bfloat16" else None
    assert_same(step(checkpointed, x, dtype), step(plain, x, dtype))


def test_norms_with_fixed_statistics_stay_as_they_are():
    plain, checkpointed = pair(small().double())
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for model in (plain, checkpointed):
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_(generator=torch.Generator().manual_seed(1))
                module.eval()
    assert_same(step(checkpointed, x), step(plain, x))


def test_detectron2s_resnet_under_fpn_keeps_its_names():
    stages = ResNet.make_default_stages(18, norm="BN")
    bottom_up = ResNet(BasicStem(norm="BN"), stages, out_features=list(STAGES))
    plain = FPN(bottom_up, list(STAGES), 8)
    plain, checkpointed = pair(plain.double(), ("res2", "res4"))
    kinds = [type(stage) for stage in checkpointed.bottom_up.stages]
    assert kinds == [CheckpointedStage, nn.Sequential] * 2
    assert checkpointed.bottom_up.res2 is checkpointed.bottom_up.stages[0]
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert_same(step(checkpointed, x), step(plain, x))


def count_calls(module: nn.Module) -> list:
    calls = []
    module.register_forward_pre_hook(lambda *args: calls.append(1))
    return calls


def test_blocks_run_twice_only_where_gradients_are_needed():
    model = small(freeze_at=2)
    checkpoint_stages(model, STAGES)
    x = torch.randn(2, 3, 64, 64)
    frozen, trained = count_calls(model.res2[0].conv1), count_calls(model.res3[0].conv1)
    step(model, x)
    assert (len(frozen), len(trained)) == (1, 2)
    model.eval()
    with torch.no_grad():
        model(x)
    assert (len(frozen), len(trained)) == (2, 3)


def saved_bytes(model: nn.Module, x: torch.Tensor) -> int:
    return saved_memory(model, lambda: model(x))


def test_the_forward_pass_keeps_less():
    plain, checkpointed = pair(small())
    x = torch.randn(2, 3, 128, 128)
    assert saved_bytes(checkpointed, x) < saved_bytes(plain, x) / 2


@pytest.mark.parametrize("variant", ["resnest50", "resnest101", "resnest50_fast_2s2x40d"])
def test_recomputed_norms_keep_three_quarters(variant):
    plain, recomputed = pair(ResNeSt.from_variant(variant), (), norms=True)
    x = torch.randn(2, 3, 96, 128)
    assert saved_bytes(recomputed, x) <= 0.75 * saved_bytes(plain, x)


def test_no_convolution_runs_twice_for_its_norm():
    class Convolutions(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func is torch.ops.aten.convolution.default
            return func(*args, **(kwargs or {}))

    counts = []
    for model in pair(small(), (), norms=True):
        with Convolutions() as convolutions:
            step(model, torch.randn(2, 3, 64, 64))
        counts.append(convolutions.count)
    # fc1 and fc2 of each of the 8 blocks' attentions are convolutions too, and do
    assert counts[1] - counts[0] == 16


def test_gradients_with_recomputed_norms_pass_gradcheck():
    model = ResNeSt.from_variant("resnest14", **SMALL, out_features=("res3",)).double()
    recompute_norms(model)
    names, parameters = zip(
        *((n, p) for n, p in model.named_parameters() if "conv2.fc2" in n or "conv1_1" in n),
        strict=True,
    )

    def run(x, *values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), x)["res3"]

    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


def test_block_with_recomputed_norms_passes_the_whole_gradcheck():
    block = Bottleneck(8, 12, bottleneck_channels=4, stride=2).double()
    recompute_norms(block)
    x = torch.randn(2, 8, 4, 5, dtype=torch.float64, requires_grad=True)
    assert block.recompute_norm
    assert torch.autograd.gradcheck(block, (x,))


@pytest.mark.parametrize("stages", [("res6",), ("stem",), ("res2", "p2"), "res2"])
def test_unknown_stages_are_refused_with_those_that_there_are(stages):
    with pytest.raises(ArgumentError, match="res2.*res5.*got"):
        checkpoint_stages(small(), stages)


def statistics_in_two_processes(rank: int) -> dict:
    found = {}
    for name, norm in (("portable", PortableSyncBatchNorm), ("naive", naive)):
        torch.manual_seed(0)
        plain, checkpointed = pair(small(norm=norm).double(), ("res3",), norms=True)
        x = torch.randn(2, 3, 64, 64, dtype=torch.float64) * (rank + 1)
        expected, actual = step(plain, x), step(checkpointed, x)
        found[name] = list(actual) == list(expected) and all(
            torch.equal(actual[key], value) for key, value in expected.items()
        )
    model = nn.parallel.DistributedDataParallel(checkpointed)
    sum(output.mean() for output in model(x).values()).backward()
    found["grad"] = checkpointed.res3[0].conv1.weight.grad
    return found


def test_synchronised_statistics_count_once_in_two_processes(tmp_path):
    first, second = run_in_processes(statistics_in_two_processes, tmp_path)
    for found in (first, second):
        assert found["portable"] and found["naive"]
    assert torch.equal(first["grad"], second["grad"])

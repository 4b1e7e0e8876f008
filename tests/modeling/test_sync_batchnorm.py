"""Batch norm over two processes equals one process with the whole batch, in float64 on the CPU."""

import copy
import itertools

import pytest
import torch
from processes import run_in_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.layers import NaiveSyncBatchNorm
from detectron2.modeling import build_backbone

from resnest_d2 import get_config
from resnest_d2.modeling.norm import PortableSyncBatchNorm, convert_sync_batchnorm
from resnest_d2.modeling.split_attention import SplitAttentionConv2d

CHANNELS = 5
# Shapes (N, H, W) of each step, for each of the two processes.
LAYER_CASES = {
    "equal": [((2, 4, 3), (2, 4, 3))],
    "unequal": [((3, 4, 5), (1, 7, 2)), ((1, 1, 2), (4, 3, 3))],
    "one empty": [((2, 3, 3), (0, 3, 3)), ((0, 14, 14), (3, 2, 5))],
    "all empty": [((2, 3, 3), (1, 3, 3)), ((0, 3, 3), (0, 3, 3))],
    "one value each": [((1, 1, 1), (1, 1, 1))],
}
LAYER_OPTIONS = {
    "default": {},
    "cumulative": {"momentum": None},
    "slow": {"momentum": 0.02},
    "not affine": {"affine": False},
    "no running": {"track_running_stats": False},
}
STEPS = 20


def layer_input(step: int, rank: int, shape: tuple[int, int, int]) -> tuple[torch.Tensor, ...]:
    """An input and the weights of its outputs in the loss."""
    generator = torch.Generator().manual_seed(10 * step + rank)
    size = (2, shape[0], CHANNELS, *shape[1:])
    x, weight = torch.randn(size, generator=generator, dtype=torch.float64)
    return 3 * x + 10 + rank, weight


def row(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (C, N*H*W)"""
    return x.transpose(0, 1).flatten(1)


def layer(options: dict, norm_class: type) -> nn.Module:
    torch.manual_seed(0)
    module = norm_class(CHANNELS, **options).double()
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return module


def network() -> nn.Module:
    """ResNeSt-14 under an FPN, SyncBN in both, float64."""
    torch.manual_seed(0)
    opts = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 14, "MODEL.FPN.OUT_CHANNELS", 32]
    cfg = get_config("mask_rcnn_resnest50_fpn", [*opts, "MODEL.BACKBONE.FREEZE_AT", 0])
    assert cfg.MODEL.RESNETS.NORM == cfg.MODEL.FPN.NORM == "SyncBN"
    return convert_sync_batchnorm(build_backbone(cfg)).double()


def network_step(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Mean over the images of a loss of each image."""
    outputs = model(images)
    losses = [out.square() - out for out in outputs.values()]
    return sum(loss.flatten(1).mean(dim=1) for loss in losses).mean()


def train(model: nn.Module, start: int, stop: int) -> dict[str, torch.Tensor]:
    """Images ``start`` to ``stop`` of each step's four; the first gradients and the last state."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    results = {}
    for step in range(STEPS):
        images = torch.randn(4, 3, 64, 64, generator=generator, dtype=torch.float64)[start:stop]
        optimizer.zero_grad()
        network_step(model, images).backward()
        if step == 0:
            results["gradients"] = {
                n.removeprefix("module."): p.grad.clone() for n, p in model.named_parameters()
            }
        optimizer.step()
    results["state"] = {n.removeprefix("module."): v for n, v in model.state_dict().items()}
    return results


def in_process(rank: int) -> dict:
    """What each of the two processes computes."""
    results = {}
    for case, options in itertools.product(LAYER_CASES, LAYER_OPTIONS):
        module = layer(LAYER_OPTIONS[options], PortableSyncBatchNorm)
        steps = []
        for step, shapes in enumerate(LAYER_CASES[case]):
            x, weight = layer_input(step, rank, shapes[rank])
            x.requires_grad_()
            module.zero_grad()
            out = module(x)
            (out * weight).sum().backward()
            gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
            buffers = {name: b.clone() for name, b in module.named_buffers()}
            steps.append((out.detach(), x.grad, gradients, buffers))
        results[f"{case}, {options}"] = steps
    for norm in (PortableSyncBatchNorm, NaiveSyncBatchNorm, nn.BatchNorm2d):
        attention = SplitAttentionConv2d(4, 4, norm=norm)
        try:
            results[norm.__name__] = attention(torch.randn(1, 4, 3, 3)).isfinite().all().item()
        except ValueError as error:
            results[norm.__name__] = str(error)
    model = network()
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {type(m) for m in norms} == {PortableSyncBatchNorm}
    results["network"] = train(DistributedDataParallel(model), 2 * rank, 2 * rank + 2)
    return results


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    return run_in_processes(in_process, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("case, options", [*itertools.product(LAYER_CASES, LAYER_OPTIONS)])
def test_layer_equals_batch_norm_on_the_whole_batch(case, options, two_processes):
    steps = [results[f"{case}, {options}"] for results in two_processes]
    module = layer(LAYER_OPTIONS[options], nn.BatchNorm2d)

    def close(actual, expected):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)

    for step, shapes in enumerate(LAYER_CASES[case]):
        # All elements of both processes as one row: (1, C, L, 1)
        parts = [layer_input(step, rank, shapes[rank]) for rank in range(2)]
        rows = [[row(part) for part in pair] for pair in zip(*parts, strict=True)]
        x, weight = (torch.cat(pair, dim=1)[None, :, :, None] for pair in rows)
        x.requires_grad_()
        before = copy.deepcopy(dict(module.named_buffers()))
        module.zero_grad()
        ours = [s[step] for s in steps]
        if x.numel() == 0:  # torch's refuses: nothing may change, in any process
            assert all(out.numel() == 0 for out, *_ in ours)
            for _, _, gradients, buffers in ours:
                assert not any(grad.any() for grad in gradients.values())
                close(buffers, before)
            continue
        out = module(x)
        (out * weight).sum().backward()
        sizes = [part.shape[1] for part in rows[0]]
        for ours_part, expected in ((0, out), (1, x.grad)):
            for actual, part in zip(ours, expected.split(sizes, dim=2), strict=True):
                close(row(actual[ours_part]), part[0, :, :, 0])
        for name, parameter in module.named_parameters():
            close(sum(gradients[name] for _, _, gradients, _ in ours), parameter.grad)
        for _, _, _, buffers in ours:
            close(buffers, dict(module.named_buffers()))


def test_one_image_a_process_is_enough_for_norms_that_synchronise(two_processes):
    for results in two_processes:
        assert results["PortableSyncBatchNorm"] is True
        assert results["NaiveSyncBatchNorm"] is True
        assert "SOLVER.IMS_PER_BATCH" in results["BatchNorm2d"]


def test_network_trained_in_two_processes_equals_one_process(two_processes):
    expected = train(network(), 0, 4)
    for results in two_processes:
        for part in ("gradients", "state"):
            actual = results["network"][part]
            assert list(actual) == list(expected[part])
            for name, value in expected[part].items():
                torch.testing.assert_close(
                    actual[name], value, rtol=1e-8, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}"
                )

"""Norm layers by name, in training, and where one image is too few."""

import pytest
import torch
from torch import nn

from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm

from resnest_d2.modeling import VARIANTS, ResNeSt, SplitAttentionConv2d
from resnest_d2.modeling.norm import NORMS, PortableSyncBatchNorm, convert_sync_batchnorm, get_norm


def by_callable(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, momentum=0.01)


@pytest.mark.parametrize("norm", [*NORMS, None, pytest.param(by_callable, id="callable")])
def test_one_training_step_changes_the_weights(norm):
    model = ResNeSt.from_variant("resnest14", norm=norm)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    outputs = model(torch.randn(2, 3, 64, 64))
    loss = sum((out * torch.randn_like(out)).mean() for out in outputs.values())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        if parameter.dim() > 1:
            assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(
    "norm, expected",
    [
        ("", nn.Identity),
        (None, nn.Identity),
        ("BN", nn.BatchNorm2d),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", nn.GroupNorm),
        (by_callable, nn.BatchNorm2d),
    ],
)
def test_names_mean_what_they_mean_in_detectron2(norm, expected):
    with torch.device("meta"):
        model = ResNeSt.from_variant("resnest14", norm=norm)
    assert type(model.res2[0].conv2.bn0) is type(model.res2[0].conv2.bn1) is expected
    assert type(model.stem.conv1_1.norm) is (expected if norm else type(None))


@pytest.mark.parametrize("cuda", [False, True])
def test_sync_bn_is_pytorchs_where_there_is_a_gpu(cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    norm = get_norm("SyncBN", 8)
    assert type(norm) is (nn.SyncBatchNorm if cuda else PortableSyncBatchNorm)


@pytest.mark.parametrize(
    "channels, groups", [(64, 32), (32, 32), (40, 20), (80, 20), (48, 24), (7, 7)]
)
def test_group_norm_adapts_its_groups_to_the_channels(channels, groups):
    assert get_norm("GN", channels).num_groups == groups
    assert get_norm("GN", channels, on_vector=True).num_groups == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_takes_group_norm(variant):
    with torch.device("meta"):
        model = ResNeSt.from_variant(variant, norm="GN")
    for name, module in model.named_modules():
        if isinstance(module, nn.GroupNorm):
            assert module.num_channels % module.num_groups == 0
            assert (module.num_groups == 1) == name.endswith("conv2.bn1"), name


def test_attention_depends_on_the_input_under_group_norm():
    module = SplitAttentionConv2d(64, 64, norm="GN").eval()
    seen = []
    module.fc2.register_forward_hook(lambda m, args, out: seen.append(out))
    with torch.no_grad():
        for _ in range(2):
            module(torch.randn(1, 64, 6, 6))
    assert (seen[0] - seen[1]).abs().mean() > 0.01
    assert seen[0].std() > 0.01


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "naiveSyncBN", by_callable])
def test_one_training_image_under_batch_norm_raises_with_the_ways_out(norm):
    model = ResNeSt.from_variant("resnest14", norm=norm)
    x = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError) as error:
        model(x)
    for word in ("SyncBN", "FrozenBN", "GN", "SOLVER.IMS_PER_BATCH", "MODEL.RESNETS.NORM"):
        assert word in str(error.value)
    assert model.eval()(x)["res5"].isfinite().all()


@pytest.mark.parametrize("norm", ["FrozenBN", "GN", ""])
def test_one_training_image_is_enough_without_batch_statistics(norm):
    model = ResNeSt.from_variant("resnest14", norm=norm)
    model(torch.randn(1, 3, 64, 64))["res5"].mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_one_training_image_is_enough_where_all_of_it_is_frozen():
    model = ResNeSt.from_variant("resnest14", freeze_at=5)
    assert model(torch.randn(1, 3, 64, 64))["res5"].isfinite().all()


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_portable_sync_bn_is_batch_norm_in_one_process(momentum, affine):
    options = {"momentum": momentum, "affine": affine}
    ours, expected = PortableSyncBatchNorm(6, **options), nn.BatchNorm2d(6, **options)
    for _ in range(3):
        x = torch.randn(3, 6, 5, 4) + 2
        torch.testing.assert_close(ours(x), expected(x))
    torch.testing.assert_close(ours.state_dict(), expected.state_dict())
    torch.testing.assert_close(ours.eval()(x), expected.eval()(x))


def test_conversion_leaves_no_sync_bn_and_keeps_the_same_parameters():
    model = nn.Sequential(
        nn.SyncBatchNorm(4, eps=1e-3, momentum=None),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.SyncBatchNorm(4, affine=False)),
        nn.SyncBatchNorm(4, track_running_stats=False),
        nn.BatchNorm2d(4),
    )
    model[1].eval()
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert convert_sync_batchnorm(model) is model
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    after = dict(model.named_parameters()) | dict(model.named_buffers())
    assert after.keys() == tensors.keys()
    assert all(after[name] is tensors[name] for name in tensors)
    torch.testing.assert_close(model.state_dict(), state)
    assert (model[0].eps, model[0].momentum) == (1e-3, None)
    assert model[0].training and not model[1][1].training
    assert type(model[3]) is nn.BatchNorm2d


def test_conversion_replaces_a_lone_layer():
    layer = nn.SyncBatchNorm(4)
    converted = convert_sync_batchnorm(layer)
    assert type(converted) is PortableSyncBatchNorm and converted.weight is layer.weight

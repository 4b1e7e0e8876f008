"""Normalisation layers by the names that configs use, and a synchronised batch norm for any device.

Differs from Detectron2's ``get_norm`` in three points: group norm adapts the number of groups to
the channels (fast variants have 40, 48 or 80 channels, not divisible by 32), unknown names are
refused with the choices, and ``SyncBN`` works without a GPU.
"""

import torch
import torch.nn.functional as F
from fvcore.nn.distributed import differentiable_all_gather
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.layers import NaiveSyncBatchNorm
from detectron2.layers import get_norm as d2_get_norm
from detectron2.utils.comm import get_world_size

from ..errors import check_choice

NORMS = ("", "BN", "SyncBN", "naiveSyncBN", "FrozenBN", "GN")
"""Norms by name; :func:`get_norm` takes a callable as well."""


def get_norm(norm, channels: int, *, on_vector: bool = False) -> nn.Module | None:
    """Build a normalisation layer.

    Args:
        norm: one of :data:`NORMS`, ``None`` (the same as ``""``: no norm), or a callable
            ``channels -> nn.Module``.
        on_vector: the input is a 1x1 map, as inside split attention. Group norm then has one group:
            a group of one channel would have a single value, normalised to zero.

    Raises:
        ArgumentError: ``norm`` is an unknown name.
    """
    if norm is None or callable(norm):
        return norm and norm(channels)
    check_choice("norm", norm, NORMS)
    if norm == "GN":
        groups = 1 if on_vector else max(g for g in range(1, 33) if channels % g == 0)
        return nn.GroupNorm(groups, channels)
    if norm == "SyncBN" and not torch.cuda.is_available():
        return PortableSyncBatchNorm(channels)
    return d2_get_norm(norm, channels)


def needs_second_value(norm: nn.Module) -> bool:
    """Whether ``norm``, in its present mode, needs more than one value per channel.

    True for a batch norm in training mode that takes its statistics from this process alone.
    """
    if not (isinstance(norm, _BatchNorm) and norm.training):
        return False
    synchronised = (nn.SyncBatchNorm, NaiveSyncBatchNorm, PortableSyncBatchNorm)
    return not isinstance(norm, synchronised) or get_world_size() == 1


class PortableSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes, on any device and distributed backend.

    ``nn.SyncBatchNorm`` runs on GPUs only, and ``DistributedDataParallel`` refuses it on the CPU.
    Detectron2's ``NaiveSyncBatchNorm`` weights processes by image, not by element, and keeps a
    biased running variance. This class gives the result of one process with the whole batch: mean
    and variance are weighted by the number of elements, the running variance is unbiased, and a
    process may have no elements (a mask head without foreground). In one process, and in evaluation
    mode, it equals ``nn.BatchNorm2d``.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():  # a scripted network is for inference
            if self.training:
                return self._normalise_by_batch(x)
        # torch.jit.script cannot compile super().forward.
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.running_mean is None,
            eps=self.eps,
        )

    @torch.jit.unused
    def _normalise_by_batch(self, x: torch.Tensor) -> torch.Tensor:
        if get_world_size() == 1:
            return super().forward(x)
        values = x if x.dtype == torch.float64 else x.float()  # (N, C, H, W)
        count = values.numel() // self.num_features
        if count:
            var, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)  # (C,), (C,)
        else:  # zeros that depend on the input: every process must take part in backward
            var = mean = values.sum(dim=(0, 2, 3))

        own = torch.cat([mean, var, mean.new_tensor([count])])
        gathered = torch.stack(differentiable_all_gather(own))  # (processes, 2C + 1)
        means, variances, counts = gathered.split([self.num_features, self.num_features, 1], dim=1)
        counts = counts.detach()
        total = counts.sum().clamp(min=1)
        # The parallel form of the variance (Chan, Golub, LeVeque 1979): no cancellation.
        mean = (counts * means).sum(dim=0) / total
        var = (counts * (variances + (means - mean).square())).sum(dim=0) / total

        if self.track_running_stats and total > 1:
            self._update_running_statistics(mean.detach(), var.detach() * total / (total - 1))
        scale = torch.rsqrt(var + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = -mean * scale
        if self.affine:
            shift = shift + self.bias
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    def _update_running_statistics(self, mean: torch.Tensor, unbiased_var: torch.Tensor) -> None:
        self.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:  # cumulative average
            momentum = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased_var.to(self.running_var.dtype), momentum)


def convert_sync_batchnorm(model: nn.Module) -> nn.Module:
    """Replace every ``nn.SyncBatchNorm`` in ``model`` by a :class:`PortableSyncBatchNorm`.

    Parameters and buffers stay the same tensors, so that an optimizer built before stays valid.
    Returns ``model``, or its replacement where ``model`` itself is such a layer.
    """
    if isinstance(model, nn.SyncBatchNorm):
        converted = PortableSyncBatchNorm(
            model.num_features,
            eps=model.eps,
            momentum=model.momentum,
            affine=model.affine,
            track_running_stats=model.track_running_stats,
        )
        converted._parameters.update(model._parameters)
        converted._buffers.update(model._buffers)
        return converted.train(model.training)
    for name, child in model.named_children():
        replacement = convert_sync_batchnorm(child)
        if replacement is not child:
            setattr(model, name, replacement)
    return model

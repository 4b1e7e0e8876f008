"""The official classification models and timm's, with the same random weights as ours."""

import re

import torch
from torch import nn

from resnest_d2.modeling import ResNeSt

TIMM_NAMES = {
    "resnest14": "resnest14d",
    "resnest26": "resnest26d",
    "resnest50": "resnest50d",
    "resnest101": "resnest101e",
    "resnest200": "resnest200e",
    "resnest269": "resnest269e",
    "resnest50_fast_4s2x40d": "resnest50d_4s2x40d",
    "resnest50_fast_1s4x24d": "resnest50d_1s4x24d",
}
WITHOUT_OFFICIAL = ("resnest14", "resnest26")

_RULES = [  # in this order, on an official name
    (r"^conv1\.0\.", "stem.conv1_1."),
    (r"^conv1\.1\.", "stem.conv1_1.norm."),
    (r"^conv1\.3\.", "stem.conv1_2."),
    (r"^conv1\.4\.", "stem.conv1_2.norm."),
    (r"^conv1\.6\.", "stem.conv1_3."),
    (r"^bn1\.", "stem.conv1_3.norm."),
    (r"^fc\.", "linear."),
    (r"^layer(\d\.\d+)\.bn([123])\.", r"layer\1.conv\2.norm."),
    (r"\.downsample\.1\.", ".shortcut."),
    (r"\.downsample\.2\.", ".shortcut.norm."),
]


def our_name(official: str) -> str:
    """Our state-dict name for an official (or timm) one."""
    for pattern, replacement in _RULES:
        official = re.sub(pattern, replacement, official)
    return re.sub(r"^layer(\d)", lambda m: f"res{int(m[1]) + 1}", official)


def reference_names(variant: str) -> list[str]:
    """Which of ``official`` and ``timm`` have this variant."""
    official = [] if variant in WITHOUT_OFFICIAL else ["official"]
    return official + (["timm"] if variant in TIMM_NAMES else [])


def build_reference(kind: str, variant: str, **kwargs) -> nn.Module:
    if kind == "timm":
        import timm

        return timm.create_model(TIMM_NAMES[variant], **kwargs)
    import resnest.torch

    return getattr(resnest.torch, variant)(**kwargs)


def random_state(shapes: dict[str, torch.Size], dtype=torch.float64) -> dict[str, torch.Tensor]:
    """Random weights by our names: every tensor is far from its initial value.

    A batch norm that ends a residual branch gets small weights: random statistics do not
    normalise, and without that the activations would grow with each of up to 89 blocks.
    """
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif name.endswith("running_mean"):
            state[name] = 0.1 * torch.randn(shape, dtype=dtype)
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            state[name] = 0.5 + torch.rand(shape, dtype=dtype)
            if name.endswith("conv3.norm.weight"):
                state[name] *= 0.1
        elif name.endswith("weight"):
            fan_in = shape[1:].numel()
            state[name] = torch.randn(shape, dtype=dtype) * (2 / fan_in) ** 0.5
        else:
            state[name] = 0.1 * torch.randn(shape, dtype=dtype)
    return state


def same_weights(
    variant: str, kinds: list[str], dtype=torch.float64, reference_kwargs=None, **kwargs
) -> tuple[ResNeSt, dict[str, nn.Module]]:
    """Our network with 1000 classes and the references, all with the same random weights."""
    with torch.device("meta"):
        ours = ResNeSt.from_variant(variant, num_classes=1000, **kwargs)
        references = {k: build_reference(k, variant, **(reference_kwargs or {})) for k in kinds}
    state = random_state({k: v.shape for k, v in ours.state_dict().items()}, dtype)
    ours.load_state_dict(clone_statistics(state), assign=True)
    for reference in references.values():
        names = {name: our_name(name) for name in reference.state_dict()}
        assert sorted(names.values()) == sorted(state)
        own = clone_statistics(state)
        reference.load_state_dict({name: own[our] for name, our in names.items()}, assign=True)
    return ours, references


def clone_statistics(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights may share memory between networks, what training changes in place may not."""
    return {
        name: value.clone() if "running" in name or "tracked" in name else value
        for name, value in state.items()
    }


def reference_outputs(reference: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What :class:`ResNeSt` returns, from the reference's own forward."""
    outputs = {}

    def keep(name):
        return lambda module, args, out: outputs.__setitem__(name, out)

    layers = [getattr(reference, f"layer{i}") for i in range(1, 5)]
    handles = [
        layer.register_forward_hook(keep(f"res{i}")) for i, layer in enumerate(layers, start=2)
    ]
    try:
        outputs["linear"] = reference(x)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """L2 norm of the difference over that of ``expected``; shapes must be equal."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    return ((actual - expected).norm() / expected.norm().clamp(min=1e-300)).item()

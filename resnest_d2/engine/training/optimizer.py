"""The optimiser: SGD or AdamW, with gradients clipped before each step.

Rates of biases and norms are Detectron2's, and so is clipping by ``"value"`` or by the ``"norm"``
of each parameter's gradient. ``"full_model"``, one norm over all gradients, is common with AdamW;
it uses PyTorch's function.
"""

import logging
from typing import Any

import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as d2_build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping

logger = logging.getLogger(__name__)

CLIP_TYPES = ("value", "norm", "full_model")
"""``SOLVER.CLIP_GRADIENTS.CLIP_TYPE``."""


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of ``SOLVER.OPTIMIZER`` and ``SOLVER`` for the trained parameters."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    whole = clip.ENABLED and clip.CLIP_TYPE == "full_model"
    if clip.ENABLED:
        what = "all gradients together" if whole else "each gradient"
        what = (
            "each value" if clip.CLIP_TYPE == "value" else f"the {clip.NORM_TYPE:g}-norm of {what}"
        )
        logger.info(f"Gradients are clipped: {what} to {clip.CLIP_VALUE:g}")
    if not whole:
        return _build(cfg, model)

    unclipped = cfg.clone()
    unclipped.defrost()
    unclipped.SOLVER.CLIP_GRADIENTS.ENABLED = False
    optimizer = _build(unclipped, model)

    def clip_all(optimizer: torch.optim.Optimizer, args, kwargs) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)

    optimizer.register_step_pre_hook(clip_all)
    return optimizer


def _build(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "SGD" and solver.BACKBONE_MULTIPLIER == 1:
        return d2_build_optimizer(cfg, model)

    def factor(name: str) -> float:
        return solver.BACKBONE_MULTIPLIER if name.startswith("backbone.") else 1.0

    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=factor,
    )
    options: dict[str, Any] = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY}
    optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW
    if solver.OPTIMIZER == "SGD":
        optimizer_class = torch.optim.SGD
        options |= {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    return maybe_add_gradient_clipping(cfg, optimizer_class)(parameters, **options)

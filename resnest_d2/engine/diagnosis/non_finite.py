"""A loss that is not finite: stop, report the cause, and write a file that repeats it.

Detectron2 checks in the first process only, after the backward pass, and reports neither images nor
weights. Here every process checks before each backward pass, and all of them stop together with the
first one's message. The file holds the weights, the batch and the state of the random generators:
``resnest-d2 replay`` repeats the forward and backward pass from it.
"""

import logging
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.utils import comm

from ...files import writing
from .examples import pack
from .run_errors import first_line

logger = logging.getLogger(__name__)


class NonFiniteLossError(FloatingPointError):
    """The losses of a batch are not finite; the message says all that is known.

    Attributes:
        file: to replay, "" if it could not be written.
        shared: every process of the run raises the error, with the same message.
    """

    names_process = True  # the message names the process

    def __init__(self, message: str, *, file: str = "", shared: bool = False):
        super().__init__(message)
        self.file = file
        self.shared = shared


@dataclass(frozen=True)
class Gradient:
    """The largest absolute value of a parameter's gradient; NaN where one is in it."""

    name: str
    value: float


class LossGuard:
    """Checks the losses before each backward pass; for ``TrainingStep``.

    Args:
        model: the model, without its distributed wrapper.
        record: see :func:`resnest_d2.checkpoint.make_record`.
        folder: for the file.
        iteration: gives the number of the current one.
        micro_batches: per step.
        dtype: of autocast; None: float32.
        hints: what a user may change, e.g. ``"lower SOLVER.BASE_LR (0.02)"``.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        record: Mapping,
        folder: str,
        iteration: Callable[[], int],
        micro_batches: int = 1,
        dtype: torch.dtype | None = None,
        hints: str = "",
    ):
        self._model = model
        self._record = dict(record)
        self._folder = folder
        self._iteration = iteration
        self._micro_batches = micro_batches
        self.dtype = dtype
        self._hints = hints
        self._device = next(model.parameters()).device
        self._position = (-1, 0)  # iteration, micro-batch from 1
        self._generators: dict[str, torch.Tensor] = {}
        model.register_forward_pre_hook(self._remember_generators)

    def __call__(self, losses: Mapping[str, torch.Tensor], batch: list[dict]) -> None:
        """Raise a NonFiniteLossError, in all processes, where one's losses are not finite."""
        self._advance()
        total = sum(losses.values())
        finite = torch.isfinite(total.detach()).float()
        if comm.get_world_size() > 1:
            dist.all_reduce(finite, dist.ReduceOp.MIN)
        if finite.item():
            return
        # In all processes, as synchronised batch norms communicate in the backward pass.
        gradients, reason = self._gradients(total)
        own = None
        if not math.isfinite(total.item()):
            own = self._describe(losses, batch, gradients, reason)
        message, file = next(filter(None, comm.all_gather(own)))
        raise NonFiniteLossError(message, file=file, shared=True)

    def forward_failed(self, error: FloatingPointError, batch: list[dict]) -> None:
        """Raise a NonFiniteLossError for Detectron2's own, from inside the forward pass.

        Detectron2's proposals raise one before the losses are returned; those that were computed
        before are still found. Other processes are not asked: they may not have come so far.
        """
        self._advance()
        losses = losses_before(error)
        gradients, reason = [], "no loss had been computed"
        # PyTorch's and our synchronised norms are subclasses of it, Detectron2's is named so.
        synchronised = any(
            isinstance(module, _BatchNorm) and module.training and "Sync" in type(module).__name__
            for module in self._model.modules()
        )
        if losses and synchronised and comm.get_world_size() > 1:
            reason = "batch norms that synchronise need all processes: replay names it"
        elif losses:
            gradients, reason = self._gradients(sum(losses.values()))
        message, file = self._describe(losses, batch, gradients, reason, str(error))
        raise NonFiniteLossError(message, file=file) from error

    def _advance(self) -> None:
        iteration, (last, number) = self._iteration(), self._position
        self._position = (iteration, number + 1 if iteration == last else 1)

    def _remember_generators(self, module: nn.Module, args) -> None:
        if module.training:  # anchors and proposals are sampled at random
            self._generators = {"cpu": torch.get_rng_state()}
            if self._device.type == "cuda":
                self._generators["cuda"] = torch.cuda.get_rng_state(self._device)

    def _gradients(self, total: torch.Tensor) -> tuple[list[Gradient], str]:
        """Gradients, the largest first, and the reason where there are none."""
        try:
            return largest_gradients(self._model, total), "no parameter has one"
        except RuntimeError as error:
            return [], f"the backward pass failed: {first_line(error)}"

    def _describe(
        self,
        losses: Mapping[str, torch.Tensor],
        batch: list[dict],
        gradients: list[Gradient],
        reason: str,
        error: str = "",
    ) -> tuple[str, str]:
        """The message, and the file that was written for it, "" if none could be."""
        iteration, number = self._position
        rank, processes = comm.get_rank(), comm.get_world_size()
        where = f"iteration {iteration}"
        if self._micro_batches > 1:
            where += f", micro-batch {number} of {self._micro_batches}"
        if processes > 1:
            where += f", the process of rank {rank} (of {processes})"
        values = {name: value.item() for name, value in losses.items()}
        said = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        if gradients:
            bad = sum(not math.isfinite(gradient.value) for gradient in gradients)
            reason = (
                f"{gradients[0].name} {gradients[0].value:.4g} "
                f"(not finite in {bad} of {len(gradients)} parameters)"
            )
        else:
            reason = f"unknown, {reason}"
        file = Path(self._folder, f"nonfinite_{iteration:07d}_rank{rank}.pth")
        try:
            self._save(file, values, batch, error)
            kept = f"kept: resnest-d2 replay {file}"
        except (OSError, RuntimeError) as failure:  # PyTorch raises the second for a full disk
            file, kept = "", f"not kept: {first_line(failure)}"
        lines = [
            f"the loss is not finite at {where}",
            *([f"  {error}"] if error else []),
            f"  losses: {said or 'none had been computed'}",
            f"  images: {', '.join(map(_name_image, batch))}",
            f"  largest gradient: {reason}",
            f"  batch and state are {kept}",
            "No weight was changed by it. Started again or with --resume, the run goes on from its "
            "last checkpoint and meets the same batch again: look at these images and their "
            f"annotations first{', ' if self._hints else ''}{self._hints}",
        ]
        return "\n".join(lines), str(file)

    def _save(self, path: Path, losses: dict, batch: list[dict], error: str) -> None:
        """Write the file, as tensors and plain types, whole or not at all."""
        iteration, number = self._position
        modules = self._model.named_modules()
        content = {
            "kind": "nonfinite",
            "iteration": iteration,
            "micro_batch": number,
            "rank": comm.get_rank(),
            "world_size": comm.get_world_size(),
            "losses": losses,
            "error": error,
            "batch": pack(batch),
            "model": dict(self._model.state_dict()),
            "in_evaluation_mode": [name for name, module in modules if not module.training],
            "frozen": [n for n, p in self._model.named_parameters() if not p.requires_grad],
            "generators": self._generators,
            "device": self._device.type,
            "dtype": str(self.dtype).removeprefix("torch.") if self.dtype else "",
            "record": self._record,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as file:
            torch.save(content, file)


def largest_gradients(model: nn.Module, loss: torch.Tensor) -> list[Gradient]:
    """The gradients of the parameters that have one, the largest first.

    Values that are not finite come first; ties stay in the model's order. No gradient is
    accumulated in the parameters, and distributed wrappers do not communicate.
    """
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    if not named or not loss.requires_grad:
        return []
    values = torch.autograd.grad(loss, [value for _, value in named], allow_unused=True)
    gradients = [
        Gradient(name, value.abs().max().item())  # NaN wins in max
        for (name, _), value in zip(named, values, strict=True)
        if value is not None and value.numel()
    ]
    return sorted(gradients, key=lambda g: -g.value if math.isfinite(g.value) else -math.inf)


def losses_before(error: BaseException) -> dict[str, torch.Tensor]:
    """The losses that the functions of an error's traceback had computed."""
    losses: dict[str, torch.Tensor] = {}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for name, value in frame.f_locals.items():
            if name.endswith("losses") and isinstance(value, dict):
                losses.update(
                    (key, loss)
                    for key, loss in value.items()
                    if isinstance(loss, torch.Tensor) and loss.numel() == 1
                )
    return losses


def _name_image(example: Mapping) -> str:
    name = str(example.get("image_id", "without an id"))
    return f"{name} ({example['file_name']})" if "file_name" in example else name

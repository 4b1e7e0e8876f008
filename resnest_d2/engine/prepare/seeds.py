"""The seed of a run: one number, drawn once, which all random numbers of the run depend on."""

import logging
import secrets
from pathlib import Path

import torch

from detectron2.config import CfgNode
from detectron2.utils import comm

from ...checkpoint import RECORD_KEY, RunCheckpointer, choose_checkpoint
from ...checkpoint.resume_changes import recorded_value
from .request import RunRequest

logger = logging.getLogger(__name__)


def fix_seed(cfg: CfgNode, request: RunRequest) -> CfgNode:
    """A frozen config like ``cfg`` whose ``SEED`` is at least 0, the same in all processes.

    A negative seed is replaced: in a resumed run by its recorded seed, in a new one by a random
    seed, which is recorded in ``config.yaml`` and every checkpoint.
    """
    if cfg.SEED >= 0:
        return cfg
    seed = None
    if comm.is_main_process():
        seed = _recorded_seed(cfg.OUTPUT_DIR) if request.resume else None
        source = "was drawn when the run began" if seed is not None else "is drawn"
        seed = secrets.randbelow(2**31) if seed is None else seed
        logger.info(f"SEED {seed} {source}: set it in place of {cfg.SEED} to repeat the run")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SEED = comm.all_gather(seed)[0]
    cfg.freeze()
    return cfg


def _recorded_seed(folder: str) -> int | None:
    """The seed of the run in a folder, from its checkpoint or, before the first, config.yaml."""
    if RunCheckpointer.has_last(folder):
        record = choose_checkpoint(folder).outline.metadata.get(RECORD_KEY)
        text = record.get("config") if isinstance(record, dict) else None
    else:
        try:
            text = Path(folder, "config.yaml").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
    seed = recorded_value(text, "SEED")
    return seed if isinstance(seed, int) and seed >= 0 else None


class Generators:
    """States of PyTorch's random generators, for a checkpoint. Only the main process restores them:
    with equal states, all processes would draw the same numbers.
    """

    def state_dict(self) -> dict:
        state = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def load_state_dict(self, state: dict) -> None:
        if not comm.is_main_process():
            return
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(state["cuda"])

"""The poly schedule of Detectron2's DeepLab project, for runs that are resumed with another length.

Importing this file imports that project, which registers its heads.
"""

from detectron2.projects.deeplab.lr_scheduler import WarmupPolyLR

_POSITION = ("last_epoch", "_step_count", "_last_lr")


class PolyLR(WarmupPolyLR):
    """``WarmupPolyLR`` whose checkpoint has only the position: the schedule is the config's."""

    def state_dict(self) -> dict:
        return {key: self.__dict__[key] for key in _POSITION}

    def load_state_dict(self, state_dict: dict) -> None:
        self.__dict__.update({key: state_dict[key] for key in _POSITION})


def build_poly_scheduler(cfg, optimizer) -> PolyLR:
    """As Detectron2's ``build_lr_scheduler``."""
    solver = cfg.SOLVER
    return PolyLR(
        optimizer,
        solver.MAX_ITER,
        warmup_factor=solver.WARMUP_FACTOR,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_method=solver.WARMUP_METHOD,
        power=solver.POLY_LR_POWER,
        constant_ending=solver.POLY_LR_CONSTANT_ENDING,
    )

"""The differences of two configs, and which of them make a comparison of backbones unfair.

Two runs compare two backbones only where everything else is the same: schedule, batch, image sizes,
heads, data. :func:`recipe_changes` lists what is not the same. It leaves out the network, what
belongs to its weights (input format, mean, std), and settings that change no result.
"""

from typing import Any

from detectron2.config import CfgNode

from ..config import flat_values

_WEIGHTS = "MODEL.WEIGHTS"
_NO_RECIPE = """
    MODEL.PIXEL_MEAN MODEL.PIXEL_STD INPUT.FORMAT OUTPUT_DIR SEED VERSION VIS_PERIOD CUDNN_BENCHMARK
    MODEL.DEVICE DATALOADER.NUM_WORKERS SOLVER.CHECKPOINT_PERIOD RESNEST.ACTIVATION_CHECKPOINTING
    RESNEST.ALLOW_FROZEN_RANDOM RESNEST.ALLOW_PARTIAL_BACKBONE RESNEST.ALLOW_STATISTICS_MISMATCH
    RESNEST.CHANNELS_LAST RESNEST.COMPILE_BACKBONE RESNEST.EVALUATOR RESNEST.KEEP_CHECKPOINTS
    RESNEST.RECOMPUTE_NORM
""".split()


def config_changes(a: CfgNode, b: CfgNode) -> dict[str, tuple[Any, Any]]:
    """All values that differ: ``{"SOLVER.MAX_ITER": (1000, 2000)}``, in the order of the keys.

    A list equals a tuple of the same values. The value of a missing key, as in a config of an older
    version, is None.
    """
    a, b = flat_values(a), flat_values(b)
    pairs = {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys())}
    return {key: pair for key, pair in pairs.items() if _plain(pair[0]) != _plain(pair[1])}


def network_changes(a: CfgNode, b: CfgNode) -> dict[str, tuple[Any, Any]]:
    """The :func:`config_changes` of the backbone."""
    return {key: pair for key, pair in config_changes(a, b).items() if _is_backbone(key)}


def recipe_changes(a: CfgNode, b: CfgNode) -> dict[str, tuple[Any, Any]]:
    """The :func:`config_changes` that make a comparison of backbones unfair.

    ``MODEL.WEIGHTS`` is among them where only one of the runs starts from weights.
    """
    return {
        key: pair
        for key, pair in config_changes(a, b).items()
        if not _is_backbone(key) and key not in _NO_RECIPE and (key != _WEIGHTS or "" in pair)
    }


def _is_backbone(key: str) -> bool:
    return key == "MODEL.BACKBONE.NAME" or key.startswith("MODEL.RESNETS.")


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value

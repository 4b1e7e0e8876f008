"""What has changed between the config of a checkpoint and the one that a run goes on with."""

from typing import Any

from ..config import flat_values, present_keys
from .record import parse_config

OPTIMISER_KEYS = (
    "SOLVER.BASE_LR",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.MOMENTUM",
    "SOLVER.NESTEROV",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.WEIGHT_DECAY_BIAS",
    "SOLVER.WEIGHT_DECAY_NORM",
)
"""Keys that just make the optimiser: a saved one goes on with the values that it was made of."""

_ELSEWHERE = ("OUTPUT_DIR",)  # says where a run is, not what it does


def changed_keys(before: str | None, now: str) -> list[tuple[str, Any, Any]]:
    """Keys with another value, as (key, old, new).

    Keys that just one of the configs has are no changes: other versions have other keys.

    Args:
        before, now: configs as YAML; what cannot be read has no keys.
    """
    old, new = _values(before), _values(now)
    return [
        (key, old[key], value)
        for key, value in new.items()
        if key in old
        and old[key] != value
        and key not in _ELSEWHERE
        and not (key == "SEED" and value < 0)
    ]


def recorded_value(config: str | None, key: str) -> Any:
    """One key's value in a config as YAML; None where it has no such key."""
    return _values(config).get(key)


def _values(config: str | None) -> dict[str, Any]:
    try:
        return present_keys(flat_values(parse_config(config or "")))
    except ValueError:
        return {}

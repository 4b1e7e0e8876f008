"""Which values the user gave, and where: in which file of a YAML chain, or in ``opts``."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from detectron2.config import CfgNode, get_cfg

from ...config import add_resnest_config, get_value, merge_opts


class GivenValues:
    """The layers of a config. Layer -1 stands for the defaults, the last one for ``opts``.

    Args:
        layers: see :func:`resnest_d2.config.read_config`.
    """

    def __init__(self, layers: Sequence[dict[str, Any]]):
        self._layers = layers

    @property
    def opts(self) -> int:
        """The layer of ``opts``."""
        return len(self._layers) - 1

    def in_opts(self, key: str) -> bool:
        return key in self._layers[-1]

    def layer(self, key: str) -> int:
        """The last layer that gives a key a value."""
        return max((i for i, layer in enumerate(self._layers) if key in layer), default=-1)

    def value(self, key: str, layer: int | None = None) -> Any:
        """The value in force after a layer, by default the last one."""
        layers = self._layers if layer is None else self._layers[: layer + 1]
        values = [layer[key] for layer in layers if key in layer]
        if not values:
            return get_value(self._defaults, key)
        typed = self._defaults.clone()
        merge_opts(typed, [key, values[-1]])  # as get_config reads it: "16" is 16
        return get_value(typed, key)

    @cached_property
    def _defaults(self) -> CfgNode:
        cfg = get_cfg()
        add_resnest_config(cfg)
        return cfg

"""Published weights in a network alone: ``ResNeSt.from_variant(name, weights=…)``."""

import dataclasses
import os
import re

from ..checkpoint import RunCheckpointer, read_weights
from ..modeling import VARIANTS, ResNeSt
from .download import fetch
from .handler import PREFIX

_CLASSIFIER = re.compile(r"(.*\.)?(fc|linear)\.(weight|bias)")


def load_pretrained(network: ResNeSt, variant: str, weights: str) -> None:
    """Fill a network with weights in any format of :data:`resnest_d2.checkpoint.FORMATS`.

    Of a detector's weights, its backbone is used. A classifier that the file lacks, or that has
    another class count there, stays random: the logged table says so.

    Args:
        variant: the network's name, one of :data:`resnest_d2.modeling.VARIANTS`.
        weights: a file, or a name for :func:`.download.fetch`, with or without ``resnest://``.

    Raises:
        FileNotFoundError, DownloadError: see :func:`.download.fetch`.
        ValueError: not a file of weights, or weights of another network.
    """
    path, name = weights, weights.removeprefix(PREFIX)
    if not os.path.isfile(path):
        if name in VARIANTS and name != variant:  # the tensors of some have the same shapes
            raise ValueError(f"weights {weights} belong to {name}, the network is {variant}")
        path = fetch(name)
    stored = read_weights(path)
    tensors = {
        name: value
        for name, value in stored.tensors.items()
        if not _CLASSIFIER.fullmatch(name) or value.shape[:1] == (network.num_classes,)
    }
    RunCheckpointer(network).load_stored(dataclasses.replace(stored, tensors=tensors))

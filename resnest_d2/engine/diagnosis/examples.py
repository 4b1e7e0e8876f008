"""Training examples as tensors and plain types, and back, for files that a safe loader reads.

It refuses classes such as Detectron2's ``Instances``. Values without a plain form are left out.
"""

from collections.abc import Mapping

import numpy as np
import torch

from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes

_KIND = "__kind__"
_STRUCTURES = {kind.__name__: kind for kind in (Boxes, BitMasks, Keypoints, RotatedBoxes)}


def pack(value):
    """A plain copy of an example, or of anything in one."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {_KIND: "ndarray", "value": torch.from_numpy(np.ascontiguousarray(value))}
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()  # torch.save would write a view's whole storage
    if isinstance(value, Instances):
        fields = {name: pack(field) for name, field in value.get_fields().items()}
        return {_KIND: "Instances", "image_size": list(value.image_size), "fields": fields}
    if isinstance(value, PolygonMasks):
        polygons = [[torch.as_tensor(p).clone() for p in masks] for masks in value.polygons]
        return {_KIND: "PolygonMasks", "value": polygons}
    for name, kind in _STRUCTURES.items():
        if type(value) is kind:
            return {_KIND: name, "value": value.tensor.detach().cpu().clone()}
    if isinstance(value, Mapping):
        return {str(key): pack(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(item) for item in value]
    return {_KIND: "omitted", "value": f"{type(value).__module__}.{type(value).__qualname__}"}


def unpack(value):
    """The value of :func:`pack`, with lists for tuples, and without what was left out.

    Raises:
        ValueError: an unknown kind.
    """
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind is None:
        return {key: unpack(item) for key, item in value.items() if not _is_omitted(item)}
    if kind == "Instances":
        fields = {key: unpack(item) for key, item in value["fields"].items()}
        return Instances(tuple(value["image_size"]), **fields)
    if kind == "PolygonMasks":
        return PolygonMasks([[p.numpy() for p in masks] for masks in value["value"]])
    if kind == "ndarray":
        return value["value"].numpy()
    if kind in _STRUCTURES:
        return _STRUCTURES[kind](value["value"])
    raise ValueError(f"an example with a value of unknown kind {kind!r}")


def _is_omitted(value) -> bool:
    return isinstance(value, dict) and value.get(_KIND) == "omitted"

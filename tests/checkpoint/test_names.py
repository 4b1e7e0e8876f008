"""What a file of weights may name is a short list, and each name stands for this package's own."""

import torch

from resnest_d2.checkpoint import pickles

STORAGES = "Double Float Half BFloat16 Long Int Short Char Byte Bool".split()
NUMPY = ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
NAMES = {"collections.OrderedDict", "_codecs.encode", "__builtin__.bytes", "numpy.ndarray"}
NAMES |= {"numpy.dtype", *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in NUMPY)}
NAMES |= {"torch.Size", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"}
NAMES |= {f"torch.{name}Storage" for name in STORAGES}


def test_a_file_may_name_these_and_no_others():
    assert pickles._NAMES.keys() == NAMES
    for name, meaning in pickles._NAMES.items():
        assert isinstance(meaning, torch.dtype) == name.endswith("Storage")
        assert isinstance(meaning, torch.dtype) or meaning.__module__ == pickles.__name__

"""Pickles read without running them: what ``.pkl`` and ``.pth`` files of weights are made of.

A pickle is a program. Three steps keep it one that builds arrays in plain containers:

1. :func:`read_pickle` walks over its opcodes and refuses those that no file of weights needs, an
   absurd memo index (it would be allocated), and tuples in tuples: hashing them as a key can take
   for ever, or overflow the interpreter's stack.
2. :class:`ArrayUnpickler` and :class:`TensorChecker` resolve the few names that such files use to
   classes of this module, which record and check their arguments. Nothing of numpy or torch is
   called by a file, and every other name is refused.
3. A recorded array becomes a numpy array only where its shape, type and bytes agree. For PyTorch's
   containers the record is a check, before ``torch.load(weights_only=True)`` reads the file: that
   stage trusts the sizes which a file states (up to reading past its end), and its list of names
   differs from release to release.
"""

import io
import math
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable

import numpy as np

__all__ = [
    "MAGIC_NUMBER",
    "ArrayUnpickler",
    "CodeError",
    "NumpyNumbers",
    "RefusalError",
    "TensorChecker",
    "read_pickle",
]

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""The first pickle of PyTorch's container before version 1.6."""

_MAX_OPCODES = 1_000_000  # the largest ResNeSt detector with its optimiser has 300 thousand
_MAX_TUPLE = 1000  # entries, those of tuples in it included; a tensor's arguments are below 100

_OPCODES = frozenset(
    """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID
    PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET MEMOIZE
    """.split()
)


class RefusalError(ValueError):
    """Why a file is not read; the caller adds its name."""


class CodeError(RefusalError):
    """The file resolves a name that could run code: whoever trusts it can have it read."""


def read_pickle(file: io.BytesIO | mmap.mmap) -> bytes:
    """The bytes of the pickle at ``file``'s position, which moves behind it.

    Raises:
        RefusalError: not a pickle of plain containers, whatever names it resolves.
    """
    start = file.tell()
    stack: list[int] = []  # of each value, the entries that hashing visits: 1, but for tuples
    marks: list[int] = []
    memo: dict[int, int] = {}

    def remember(index: int, position: int) -> None:
        if index > position:  # a memo slot takes at least a byte of the file
            raise RefusalError("its pickle asks for absurd memory")
        memo[index] = stack[-1]

    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(file)):
            name = opcode.name
            if name not in _OPCODES:
                raise RefusalError(f"its pickle has the opcode {name}, which no weights need")
            if count > _MAX_OPCODES:
                raise RefusalError(f"its pickle has more than {_MAX_OPCODES} opcodes")
            if name == "MARK":
                marks.append(len(stack))
            elif name == "MEMOIZE":
                remember(len(memo), position)
            elif name.endswith("PUT"):
                remember(argument, position)
            elif name.endswith("GET"):
                stack.append(memo[argument])
            else:
                before = opcode.stack_before
                taken = []
                if pickletools.markobject in before:
                    mark = marks.pop()
                    taken, stack[mark:] = stack[mark:], []
                    before = before[: before.index(pickletools.markobject)]
                for _ in before:
                    taken.append(stack.pop())
                if opcode.stack_after:
                    stack.append(1 + sum(taken) if name.startswith("TUPLE") else 1)
                    if stack[-1] > _MAX_TUPLE:
                        raise RefusalError(f"its pickle has a tuple of over {_MAX_TUPLE} entries")
    except (IndexError, KeyError) as error:
        raise RefusalError("its pickle is damaged") from error
    end = file.tell()
    file.seek(start)
    return file.read(end - start)


class _Dict(dict):
    """An ``OrderedDict`` of the file. PyTorch's state dicts carry attributes, which are left."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class _Restricted(pickle.Unpickler):
    """Resolves the names of ``allowed`` and no others."""

    allowed: dict[str, object] = {}

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="latin1")  # what numpy's bytes were in Python 2

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if full not in self.allowed:
            raise CodeError(f"it holds {full}, which could run code")
        return self.allowed[full]


def _is_size(value) -> bool:
    return type(value) is int and value >= 0


def _is_shape(value) -> bool:
    return type(value) is tuple and len(value) <= 32 and all(map(_is_size, value))


# ---- Detectron2's .pkl: numpy arrays ------------------------------------------------------------


class _Dtype:
    """``numpy.dtype(name, False, True)``, then its state: version, byte order, ...

    Numbers only: an array of objects would hold anything.
    """

    __slots__ = ("name", "order")

    def __init__(self, name, *flags):
        if type(name) is not str or not re.fullmatch(r"[fiu][1248]|b1", name):
            raise RefusalError("it holds an array of other things than numbers")
        self.name, self.order = name, "="

    def __setstate__(self, state):
        order = state[1] if type(state) is tuple and len(state) > 4 else None
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise RefusalError("it holds an array of a structured or damaged type")
        self.order = order

    def build(self) -> np.dtype:
        return np.dtype(self.order + self.name)


class _Array:
    """An array's parts, as ``_reconstruct`` and the array's own state give them."""

    __slots__ = ("value",)

    def __init__(self, *arguments):  # a placeholder's, always the same
        self.value = None

    def __setstate__(self, state):
        if type(state) is not tuple or len(state) not in (4, 5):
            raise RefusalError("it holds a damaged array")
        shape, dtype, fortran, data = state[-4:]
        self.value = _build_array(data, dtype, shape, "F" if fortran else "C")


class _Scalar(_Array):
    __slots__ = ()

    def __init__(self, dtype, data):
        self.value = _build_array(data, dtype, (), "C")


class _Number:
    """The same where a number of Python's is to come of it."""

    __slots__ = ()

    def __new__(cls, dtype, data):
        return _build_array(data, dtype, (), "C").item()

    def __setstate__(self, state):
        raise RefusalError("it holds a damaged number")


class _FromBuffer(_Array):
    """Protocol 5's way to write an array."""

    __slots__ = ()

    def __init__(self, data, dtype, shape, order):
        if order not in ("C", "F"):
            raise RefusalError("it holds a damaged array")
        self.value = _build_array(data, dtype, shape, order)


class _Encode(bytes):
    """``_codecs.encode(text, "latin1")``: how protocol 2 writes bytes."""

    __slots__ = ()

    def __new__(cls, text, encoding):
        if type(text) is not str or encoding != "latin1":
            raise RefusalError("it holds damaged bytes")
        return super().__new__(cls, text.encode("latin1"))

    def __setstate__(self, state):
        raise RefusalError("it holds damaged bytes")


class _NoBytes(bytes):
    """``bytes()``: how protocol 2 writes those of an empty array."""

    __slots__ = ()

    def __new__(cls):
        return super().__new__(cls)

    def __setstate__(self, state):
        raise RefusalError("it holds damaged bytes")


def _build_array(data, dtype, shape, order: str) -> np.ndarray:
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or type(dtype) is not _Dtype:
        raise RefusalError("it holds a damaged array, or one of objects")
    kind = dtype.build()
    if not _is_shape(shape) or math.prod(shape) * kind.itemsize != len(data):
        raise RefusalError(f"it holds an array whose shape does not fit its {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape, order=order)


class ArrayUnpickler(_Restricted):
    """Plain containers and arrays of numbers, from a pickle of Python 2 or 3.

    An array comes as an object whose ``value`` is the ``np.ndarray``.
    """

    array_class = _Array
    allowed = {
        "collections.OrderedDict": _Dict,
        "_codecs.encode": _Encode,
        "__builtin__.bytes": _NoBytes,
        "numpy.ndarray": _Array,
        "numpy.dtype": _Dtype,
        **{
            f"numpy.{core}.{name}": value
            for core in ("core", "_core")
            for name, value in {
                "multiarray._reconstruct": _Array,
                "multiarray.scalar": _Scalar,
                "numeric._frombuffer": _FromBuffer,
            }.items()
        },
    }


# ---- PyTorch's pickles: tensors over storages ---------------------------------------------------

_NUMPY_NUMBERS = {
    "_codecs.encode": _Encode,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray.scalar": _Number,
    "numpy._core.multiarray.scalar": _Number,
}


class _StorageType:
    __slots__ = ("itemsize",)

    def __init__(self, itemsize: int):
        self.itemsize = itemsize

    def __setstate__(self, state):
        raise RefusalError("it holds a damaged storage")


class _Storage:
    __slots__ = ("numel",)

    def __init__(self, numel: int):
        self.numel = numel

    def __setstate__(self, state):
        raise RefusalError("it holds a damaged storage")


class _Tensor:
    """``_rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks)``."""

    __slots__ = ()

    def __init__(self, storage, offset, shape, stride, *rest):
        if (
            type(storage) is not _Storage
            or not _is_size(offset)
            or not _is_shape(shape)
            or not _is_shape(stride)
            or len(shape) != len(stride)
        ):
            raise RefusalError("it holds a damaged tensor")
        numel = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if numel and last >= storage.numel or numel > storage.numel:
            raise RefusalError(
                f"it holds a tensor of {numel} numbers outside its storage of {storage.numel}"
            )

    def __setstate__(self, state):
        raise RefusalError("it holds a damaged tensor")


class _Parameter:
    __slots__ = ()

    def __init__(self, data, requires_grad, hooks):
        if type(data) is not _Tensor:
            raise RefusalError("it holds a damaged parameter")

    def __setstate__(self, state):
        raise RefusalError("it holds a damaged parameter")


class _Size:  # no tuple: the opcodes alone do not tell how many entries it has in all
    __slots__ = ()

    def __init__(self, sizes):
        if not _is_shape(sizes):
            raise RefusalError("it holds a damaged size")

    def __setstate__(self, state):
        raise RefusalError("it holds a damaged size")


class TensorChecker(_Restricted):
    """Checks a pickle of PyTorch's: names, and that each tensor lies within its storage.

    Args:
        data: the pickle.
        check_storage: called with each storage's key and bytes; raises if they cannot be.

    Attributes:
        has_numpy_numbers: the pickle has some, so it needs :class:`NumpyNumbers`.
    """

    allowed = {
        **_NUMPY_NUMBERS,
        "collections.OrderedDict": _Dict,
        "torch.Size": _Size,
        "torch._utils._rebuild_tensor_v2": _Tensor,
        "torch._utils._rebuild_parameter": _Parameter,
        **{
            f"torch.{name}Storage": _StorageType(itemsize)
            for name, itemsize in {
                "Double": 8,
                "Float": 4,
                "Half": 2,
                "BFloat16": 2,
                "Long": 8,
                "Int": 4,
                "Short": 2,
                "Char": 1,
                "Byte": 1,
                "Bool": 1,
            }.items()
        },
    }

    def __init__(self, data: bytes, check_storage: Callable[[str, int], None]):
        super().__init__(data)
        self._check_storage = check_storage
        self.has_numpy_numbers = False

    def find_class(self, module, name):
        self.has_numpy_numbers |= f"{module}.{name}" in _NUMPY_NUMBERS
        return super().find_class(module, name)

    def persistent_load(self, pid):
        # "storage", type, key, device, numel and, in the old container, None
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise RefusalError("it refers to something that is no storage")
        _, kind, key, device, numel, *view = pid
        if (
            type(kind) is not _StorageType
            or type(key) is not str
            or type(device) is not str
            or not _is_size(numel)
            or any(part is not None for part in view)
        ):
            raise RefusalError("it holds a damaged storage")
        self._check_storage(key, numel * kind.itemsize)
        return _Storage(numel)


class NumpyNumbers:
    """A ``pickle_module`` for ``torch.load``, for what :class:`TensorChecker` has checked.

    Numbers of numpy become Python's. PyTorch's ``weights_only`` refuses them; from 2.5 on it can be
    told not to, but would then let the file set the state of numpy's own types.
    """

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            full = f"{module}.{name}"
            if full not in TensorChecker.allowed:
                raise CodeError(f"it holds {full}, which could run code")
            return _NUMPY_NUMBERS.get(full) or super().find_class(module, name)

    @classmethod
    def load(cls, file, **kwargs):
        return cls.Unpickler(file, **kwargs).load()

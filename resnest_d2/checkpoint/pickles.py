"""An interpreter for the part of pickle that files of weights need; nothing of a file is executed.

A pickle is a program. :func:`read_pickle` interprets its opcodes itself: constants, lists, tuples
and dicts, and calls of the few functions of this module that :data:`_NAMES` stands in for numpy's
and PyTorch's. Each checks its arguments and builds the array or tensor from bytes of the file. No
other reader (``pickle``, ``torch.load``) sees the file, so what is checked is what is loaded.

The work is linear in the file's size. Keys are texts or small integers, because equal hashes make
a dict quadratic, and hashing nested tuples takes exponential time. What a pickle says of sizes is
compared with the bytes that are there. :func:`plain` copies the result and counts what it visits:
a list of lists of the same list is small in a file and endless for whoever walks over it.
"""

import math
import mmap
import pickletools
import re
import types
from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch

__all__ = ["MAGIC_NUMBER", "CodeError", "RefusalError", "plain", "read_pickle"]

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""The first pickle of PyTorch's container before version 1.6."""

_MAX_OPCODES = 1_000_000  # the largest ResNeSt detector with its optimiser has 300 thousand
_MAX_DEPTH = 100  # of containers in containers
_MAX_KEY = 1 << 31
_MAX_BITS = 2048  # of an integer
_MAX_TEXT = 1 << 20  # characters and bytes, where the file itself is smaller
_MAX_VALUES = 10_000  # the same for the values in containers
_SHARING = 4  # texts and tensors may share bytes of the file, but no more often than this

_VALUES = frozenset(
    """
    INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    """.split()
)
_NEW = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusalError(ValueError):
    """Why a file is not read; the caller adds its name."""


class CodeError(RefusalError):
    """The file calls something that could run code."""


def read_pickle(
    file: BytesIO | mmap.mmap,
    size: int,
    read_storage: Callable[[str, torch.dtype, int], torch.Tensor] | None = None,
):
    """Interpret the pickle at ``file``'s position, which moves behind it.

    Args:
        size: of the whole file in bytes; what is built may not exceed a few times as much.
        read_storage: gives the storage of a key, a type and a number of elements, as a tensor of
            one dimension; None where the container has none.

    Returns:
        Plain types, lists, tuples, dicts, numpy arrays and scalars, and tensors on the CPU.

    Raises:
        RefusalError: the pickle holds anything else, or is damaged.
    """
    limit = _SHARING * size + _MAX_TEXT
    try:
        value = _interpret(file, read_storage, _Budget(_MAX_OPCODES, limit))
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise RefusalError("its pickle is damaged") from error
    return plain(value, size)


def plain(value, size: int):
    """A copy of a content that any code may walk over, print or compare.

    Args:
        size: of what it was read from, in bytes. References make one value count several times.

    Raises:
        RefusalError: it holds other types, is deeply nested, or is much larger than its source.
    """
    values = min(_MAX_OPCODES, _SHARING * size + _MAX_VALUES)
    return _plain(value, _Budget(values, _SHARING * size + _MAX_TEXT))


def _interpret(file, read_storage, budget: "_Budget"):
    stack: list = []
    marks: list[int] = []
    memo: dict[int, object] = {}

    def pop_marked() -> list:
        mark = marks.pop()
        items = stack[mark:]
        del stack[mark:]
        return items

    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MAX_OPCODES:
            raise RefusalError(f"its pickle has more than {_MAX_OPCODES} opcodes")
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _NEW:
            stack.append(_NEW[name]())
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(pop_marked()))
        elif name == "LIST":
            stack.append(pop_marked())
        elif name == "DICT":
            items = pop_marked()
            stack.append(_fill({}, items))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else pop_marked()
            list.extend(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else pop_marked()
            _fill(stack[-1], items)
        elif name == "GLOBAL":
            stack.append(_resolve(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            module, attribute = stack.pop(-2), stack.pop()
            stack.append(_resolve(f"{module}.{attribute}"))
        elif name == "REDUCE":
            function, arguments = stack.pop(-2), stack.pop()
            if type(function) is not types.FunctionType or type(arguments) is not tuple:
                raise RefusalError("its pickle calls something that is no function")
            budget.take_all(arguments)
            stack.append(function(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], (_Dtype, _Array)):
                budget.take_all(state)
                stack[-1].set_state(state)
            elif type(stack[-1]) is not dict:  # an OrderedDict's attributes are left out
                raise RefusalError(f"it sets the state of a {type(stack[-1]).__name__}")
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop(), read_storage))
        elif name == "STOP":
            return stack.pop()
        elif name == "PROTO" and argument > 5:
            raise RefusalError(f"its pickle is of protocol {argument}")
        elif name not in ("PROTO", "FRAME"):  # they tell nothing that is needed
            raise RefusalError(f"its pickle has the opcode {name}, which no weights need")
    raise RefusalError("its pickle has no end")


def _fill(target: dict, items: list) -> dict:
    """Set keys and values, which alternate in ``items``."""
    if type(target) is not dict or len(items) % 2:
        raise RefusalError("its pickle is damaged")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str and not (type(key) is int and abs(key) < _MAX_KEY):
            raise RefusalError("it has a key that is neither a text nor a small integer")
        target[key] = value
    return target


def _resolve(name: str):
    if name not in _NAMES:
        raise CodeError(f"it holds {name}, which could run code")
    return _NAMES[name]


class _Budget:
    """How much a content may have: values, and bytes of texts, arrays and tensors."""

    def __init__(self, values: int, size: int):
        self.values, self.size = values, size

    def take(self, values: int, size: int = 0) -> None:
        self.values -= values
        self.size -= size
        if self.values < 0:
            raise RefusalError("it refers to the same values again and again")
        if self.size < 0:
            raise RefusalError(f"it claims more than {_SHARING} times the bytes of the file")

    def take_all(self, arguments: tuple) -> None:
        """What a function is given, which it may copy."""
        for part in arguments:
            if isinstance(part, list):
                self.take(len(part))
            elif isinstance(part, (str, bytes, bytearray)):
                self.take(1, len(part))


def _plain(value, budget: _Budget, depth: int = 0):
    """A copy in which arrays are numpy's, or a refusal of what is not plain."""
    if depth > _MAX_DEPTH:
        raise RefusalError(f"it has containers more than {_MAX_DEPTH} levels deep")
    kind = type(value)
    if kind in (list, tuple):
        budget.take(len(value))
        return kind(_plain(item, budget, depth + 1) for item in value)
    if kind is dict:
        budget.take(len(value), sum(len(key) for key in value if type(key) is str))
        return {key: _plain(item, budget, depth + 1) for key, item in value.items()}
    if kind is _Array:
        value = value.value
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        budget.take(1, value.nbytes)
    elif kind in (str, bytes, bytearray):
        budget.take(1, len(value))
    elif kind is int:
        if value.bit_length() > _MAX_BITS:
            raise RefusalError("it holds an integer that is too large to print")
    elif value is not None and kind not in (bool, float):
        raise RefusalError("it holds something else than tensors, arrays and plain types")
    return value


def _is_size(value) -> bool:
    return type(value) is int and value >= 0


def _is_shape(value) -> bool:
    return type(value) is tuple and len(value) <= 32 and all(map(_is_size, value))


# ---- numpy's names ------------------------------------------------------------------------------


class _Dtype:
    """``numpy.dtype(name, False, True)``, then its state: version, byte order, ...

    Numbers only: an array of objects would hold anything.
    """

    def __init__(self, name):
        if type(name) is not str or not re.fullmatch(r"[fiu][1248]|b1", name):
            raise RefusalError("it holds an array of other things than numbers")
        self.name, self.order = name, "="

    def set_state(self, state):
        order = state[1] if type(state) is tuple and len(state) > 4 else None
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise RefusalError("it holds an array of a structured or damaged type")
        self.order = order


class _Array:
    """An array that ``_reconstruct`` has begun; its state says what is in it."""

    value: np.ndarray | None = None

    def set_state(self, state):
        if type(state) is not tuple or len(state) not in (4, 5):
            raise RefusalError("it holds a damaged array")
        shape, dtype, fortran, data = state[-4:]
        self.value = _from_buffer(data, dtype, shape, "F" if fortran else "C")


def _dtype(name, *flags) -> _Dtype:
    return _Dtype(name)


def _reconstruct(*arguments) -> _Array:  # a placeholder's arguments, always the same
    return _Array()


def _scalar(dtype, data) -> np.generic:
    return _from_buffer(data, dtype, (), "C")[()]


def _from_buffer(data, dtype, shape, order) -> np.ndarray:
    """Protocol 5's way to write an array; the other ways lead here."""
    if isinstance(data, str):  # what numpy's bytes were in Python 2
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or type(dtype) is not _Dtype:
        raise RefusalError("it holds a damaged array, or one of objects")
    kind = np.dtype(dtype.order + dtype.name)
    if order not in ("C", "F") or not _is_shape(shape):
        raise RefusalError("it holds a damaged array")
    if math.prod(shape) * kind.itemsize != len(data):
        raise RefusalError(f"it holds an array whose shape does not fit its {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape, order=order)


def _encode(text, encoding) -> bytes:
    """``_codecs.encode(text, "latin1")``: how protocol 2 writes bytes."""
    if type(text) is not str or encoding != "latin1":
        raise RefusalError("it holds damaged bytes")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """``bytes()``: how protocol 2 writes those of an empty array."""
    return b""


# ---- PyTorch's names ----------------------------------------------------------------------------


class _Storage:
    def __init__(self, values: torch.Tensor):
        self.values = values


def _storage(pid, read_storage) -> _Storage:
    # "storage", type, key, device, numel and, in the old container, None
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
        raise RefusalError("it refers to something that is no storage")
    _, dtype, key, device, numel, *view = pid
    if (
        type(dtype) is not torch.dtype
        or type(key) is not str
        or type(device) is not str
        or not _is_size(numel)
        or any(part is not None for part in view)
        or read_storage is None
    ):
        raise RefusalError("it holds a damaged storage")
    return _Storage(read_storage(key, dtype, numel))


def _tensor(storage, offset, shape, stride, *rest) -> torch.Tensor:
    """``_rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks)``."""
    if (
        type(storage) is not _Storage
        or not _is_size(offset)
        or not _is_shape(shape)
        or not _is_shape(stride)
        or len(shape) != len(stride)
        or any(rest[2:])  # a view that negates
    ):
        raise RefusalError("it holds a damaged tensor")
    if 0 in shape:
        return storage.values.new_empty(shape)
    last = offset
    for step, n in sorted(zip(stride, shape, strict=True)):
        if n > 1 and step <= last - offset:
            raise RefusalError("it holds a tensor whose elements overlap")
        last += (n - 1) * step
    if last >= len(storage.values):
        raise RefusalError(
            f"it holds a tensor of {math.prod(shape)} numbers outside its storage of "
            f"{len(storage.values)}"
        )
    return storage.values.as_strided(shape, stride, offset)


def _parameter(data, requires_grad, hooks) -> torch.Tensor:
    if not isinstance(data, torch.Tensor):
        raise RefusalError("it holds a damaged parameter")
    return data


def _size(sizes) -> tuple:
    if not _is_shape(sizes):
        raise RefusalError("it holds a damaged size")
    return sizes


def _ordered_dict(pairs=()) -> dict:
    """Python 2 gives the pairs as an argument, Python 3 sets them later."""
    return _fill({}, [part for pair in pairs for part in (pair[0], pair[1])])


_NAMES = {
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "numpy.ndarray": _reconstruct,
    "numpy.dtype": _dtype,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in {
            "multiarray._reconstruct": _reconstruct,
            "multiarray.scalar": _scalar,
            "numeric._frombuffer": _from_buffer,
        }.items()
    },
    "torch.Size": _size,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **{
        f"torch.{name}Storage": dtype
        for name, dtype in {
            "Double": torch.float64,
            "Float": torch.float32,
            "Half": torch.float16,
            "BFloat16": torch.bfloat16,
            "Long": torch.int64,
            "Int": torch.int32,
            "Short": torch.int16,
            "Char": torch.int8,
            "Byte": torch.uint8,
            "Bool": torch.bool,
        }.items()
    },
}

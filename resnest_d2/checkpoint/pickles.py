"""An interpreter for the part of pickle that files of weights need; nothing of a file is executed.

A pickle is a program. :func:`read_pickle` interprets its opcodes itself: constants, lists, tuples,
dicts, and calls of the few functions of this module that :data:`_NAMES` has in place of numpy's and
PyTorch's. Each checks its arguments and builds the array or tensor from bytes of the file. No other
reader (``pickle``, ``torch.load``) sees the file, so what is checked is what is loaded.

The work is linear in the file's size. Keys are texts or small integers: equal hashes make a dict
quadratic, and hashing nested tuples takes exponential time. Sizes that a pickle claims are compared
with the bytes that are there. :func:`plain` counts each value as often as it is referred to: a list
of lists of the same list is small in a file, and endless for code that walks over it.
"""

import math
import mmap
import pickletools
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""The first pickle in PyTorch's container before version 1.6."""

_MAX_OPCODES = 1_000_000  # the largest ResNeSt detector with its optimiser has 300 thousand
_MAX_DEPTH = 100  # of containers in containers
_MAX_KEY = 1 << 31
_MAX_STORAGE_KEY = 100  # characters
_MAX_BITS = 2048  # of an integer
_MAX_TEXT = 1 << 20  # characters and bytes, where the file itself is smaller
_MAX_VALUES = 10_000  # the same for the values in containers
_SHARING = 4  # texts and tensors may share bytes of the file, but no more often than this

_VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
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


def require(condition: object, problem: str) -> None:
    """Raise a :class:`RefusalError` unless the condition holds."""
    if not condition:
        raise RefusalError(problem)


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
    try:
        budget = _Budget(_MAX_OPCODES, _SHARING * size + _MAX_TEXT)
        return plain(_interpret(file, read_storage, budget), size)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise RefusalError("its pickle is damaged") from error


def plain(value, size: int):
    """A copy of a content that any code may walk over, print or compare.

    Args:
        size: of what it was read from, in bytes.

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
            require(0 <= argument <= _MAX_OPCODES, "its pickle gives a value too large a number")
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
            stack.append(_fill({}, pop_marked()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else pop_marked()
            list.extend(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else pop_marked()
            _fill(stack[-1], items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            parts = argument.split(" ") if argument else (stack.pop(-2), stack.pop())
            function = ".".join(parts)
            if function not in _NAMES:
                raise CodeError(f"it holds {function}, which could run code")
            stack.append(_NAMES[function])
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
    require(type(target) is dict and len(items) % 2 == 0, "its pickle is damaged")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str and not (type(key) is int and abs(key) < _MAX_KEY):
            raise RefusalError("it has a key that is neither a text nor a small integer")
        target[key] = value
    return target


@dataclass
class _Budget:
    """How much a content may have: values, and bytes of texts, arrays and tensors."""

    values: int
    size: int

    def take(self, values: int, size: int = 0) -> None:
        self.values -= values
        self.size -= size
        require(self.values >= 0, "it refers to the same values again and again")
        require(self.size >= 0, f"it claims more than {_SHARING} times the bytes of the file")

    def take_all(self, arguments: tuple) -> None:
        """The arguments of a function, which may copy them."""
        self.take(len(arguments))
        for part in arguments:
            if isinstance(part, (list, tuple)):
                self.take(len(part))
            elif isinstance(part, (str, bytes, bytearray)):
                self.take(0, len(part))


def _plain(value, budget: _Budget, depth: int = 0):
    require(depth <= _MAX_DEPTH, f"it has containers more than {_MAX_DEPTH} levels deep")
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
        require(value.bit_length() <= _MAX_BITS, "it holds an integer that is too large to print")
    elif value is not None and kind not in (bool, float):
        raise RefusalError("it holds something else than tensors, arrays and plain types")
    return value


def _is_size(value) -> bool:
    return type(value) is int and value >= 0


def _is_shape(value) -> bool:
    return type(value) is tuple and len(value) <= 32 and all(map(_is_size, value))


# ---- numpy's names ------------------------------------------------------------------------------


class _Dtype:
    """``numpy.dtype(name, False, True)``, then its state: version, byte order, …

    Numbers only: an array of objects could hold anything.
    """

    def __init__(self, name):
        known = type(name) is str and re.fullmatch(r"[fiu][1248]|b1", name)
        require(known, "it holds an array of other things than numbers")
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
        require(type(state) is tuple and len(state) in (4, 5), "it holds a damaged array")
        shape, dtype, fortran, data = state[-4:]
        self.value = _from_buffer(data, dtype, shape, "F" if fortran else "C")


def _from_buffer(data, dtype, shape, order) -> np.ndarray:
    """An array as protocol 5 writes it; the other protocols lead here."""
    if isinstance(data, str):  # what numpy's bytes were in Python 2
        data = data.encode("latin1")
    sound = isinstance(data, (bytes, bytearray)) and type(dtype) is _Dtype
    require(sound, "it holds a damaged array, or one of objects")
    require(order in ("C", "F") and _is_shape(shape), "it holds a damaged array")
    kind = np.dtype(dtype.order + dtype.name)
    if math.prod(shape) * kind.itemsize != len(data):
        raise RefusalError(f"it holds an array whose shape does not fit its {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape, order=order)


def _encode(text, encoding) -> bytes:
    """``_codecs.encode(text, "latin1")``: how protocol 2 writes bytes."""
    require(type(text) is str and encoding == "latin1", "it holds damaged bytes")
    return text.encode("latin1")


# ---- PyTorch's names ----------------------------------------------------------------------------


@dataclass
class _Storage:
    values: torch.Tensor


def _storage(pid, read_storage) -> _Storage:
    # "storage", type, key, device, numel and, in the old container, None
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
        raise RefusalError("it refers to something that is no storage")
    _, dtype, key, device, numel, *view = pid
    sound = type(dtype) is torch.dtype and type(key) is type(device) is str and _is_size(numel)
    sound = sound and len(key) <= _MAX_STORAGE_KEY
    sound = sound and read_storage and all(part is None for part in view)
    require(sound, "it holds a damaged storage")
    return _Storage(read_storage(key, dtype, numel))


def _tensor(storage, offset, shape, stride, *rest) -> torch.Tensor:
    """``_rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks)``."""
    sound = type(storage) is _Storage and _is_size(offset) and _is_shape(shape)
    sound = sound and _is_shape(stride) and len(shape) == len(stride)
    require(sound and not any(rest[2:]), "it holds a damaged tensor")  # or a view that negates
    if 0 in shape:
        return storage.values.new_empty(shape)
    last = offset
    for step, n in sorted(zip(stride, shape, strict=True)):
        require(n == 1 or step > last - offset, "it holds a tensor whose elements overlap")
        last += (n - 1) * step
    if last >= len(storage.values):
        raise RefusalError(
            f"it holds a tensor of {math.prod(shape)} numbers outside its storage of "
            f"{len(storage.values)}"
        )
    return storage.values.as_strided(shape, stride, offset)


def _parameter(data, requires_grad, hooks) -> torch.Tensor:
    require(isinstance(data, torch.Tensor), "it holds a damaged parameter")
    return data


def _size(sizes) -> tuple:
    require(_is_shape(sizes), "it holds a damaged size")
    return sizes


def _ordered_dict(pairs=()) -> dict:
    """Python 2 gives the pairs as an argument, Python 3 sets them later."""
    require(type(pairs) in (list, tuple), "its pickle is damaged")
    return _fill({}, [part for pair in pairs for part in (pair[0], pair[1])])


_NAMES = {
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",  # how protocol 2 writes those of an empty array
    "numpy.ndarray": lambda *placeholder: _Array(),
    "numpy.dtype": lambda name, *flags: _Dtype(name),
    "torch.Size": _size,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
for _core in ("numpy.core", "numpy._core"):  # before numpy 2, and since
    _NAMES[f"{_core}.multiarray._reconstruct"] = lambda *placeholder: _Array()
    _NAMES[f"{_core}.multiarray.scalar"] = lambda dtype, data: _from_buffer(data, dtype, (), "C")[
        ()
    ]
    _NAMES[f"{_core}.numeric._frombuffer"] = _from_buffer
for _name, _type in zip(
    "Double Float Half BFloat16 Long Int Short Char Byte Bool".split(),
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split(),
    strict=True,
):
    _NAMES[f"torch.{_name}Storage"] = getattr(torch, _type)

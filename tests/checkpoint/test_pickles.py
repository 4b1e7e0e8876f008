"""The interpreter of pickles, opcode by opcode: what it must refuse."""

import pickletools
from io import BytesIO

import numpy as np
import pytest
import torch

from resnest_d2.checkpoint import pickles
from resnest_d2.checkpoint.pickles import RefusalError, read_pickle

CODES = {opcode.name: opcode.code.encode("latin1") for opcode in pickletools.opcodes}
ORDERED_DICT = b"ccollections\nOrderedDict\n"
DTYPE = b"cnumpy\ndtype\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


def read(*parts: bytes | str, size: int | None = None, read_storage=None):
    """What the pickle of these parts holds: names of opcodes, or bytes as they are."""
    data = b"".join(CODES[part] if isinstance(part, str) else part for part in parts)
    return read_pickle(BytesIO(data + b"."), len(data) if size is None else size, read_storage)


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def dtype(name: str) -> bytes:
    """``numpy.dtype(name, False, True)`` with its state."""
    call = DTYPE + text(name) + b"\x89\x88\x87R"
    return call + b"(" + number(3) + text("<") + b"NNN" + number(-1) * 2 + number(0) + b"tb"


def array(data: bytes, name: str = "f4", shape: int = 1) -> bytes:
    """An array of one dimension, whose bytes are the opcodes ``data``."""
    begun = RECONSTRUCT + b")R"
    return begun + b"(" + number(1) + number(shape) + b"\x85" + dtype(name) + b"\x89" + data + b"tb"


def storage(kind: str = "storage", more: int = 0, key: bytes | None = None) -> bytes:
    """A reference to a storage, with so many parts more than PyTorch's."""
    parts = text(kind) + b"ctorch\nFloatStorage\n" + (key or text("0")) + text("cpu") + number(2)
    return b"(" + parts + b"N" * more + b"tQ"


def test_an_array_is_read():
    values = read(array(text("\x00\x00\x80?")), size=1000)
    np.testing.assert_array_equal(values, np.ones(1, np.float32))


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (["EMPTY_LIST", "EMPTY_DICT", "BUILD"], "sets the state of a list"),
        ([text("a"), "EMPTY_DICT", "BUILD"], "sets the state of a str"),
        ([text("print"), "EMPTY_TUPLE", "REDUCE"], "calls something that is no function"),
        ([ORDERED_DICT, "EMPTY_LIST", "REDUCE"], "calls something that is no function"),
        (["EMPTY_LIST", "NONE", "APPEND", number(0), "NONE", "SETITEM"], "damaged"),
        (["EMPTY_DICT", "NONE", "NONE", "SETITEM"], "neither a text nor a small integer"),
        ([array(text("\x00" * 8), "O8")], "other things than numbers"),
        ([array(text("\x00" * 8), "f4,f4")], "other things than numbers"),
        ([array(text("\x00\x00\x80?"), shape=2)], "does not fit its 4 bytes"),
        ([storage()], "a damaged storage"),  # this file has none
        ([storage("module")], "something that is no storage"),
        ([storage(more=2)], "something that is no storage"),
        ([b"L" + b"9" * 700 + b"L\n"], "too large to print"),
        ([ORDERED_DICT], "something else than tensors, arrays and plain types"),
        (["EMPTY_LIST"] * 102 + ["APPEND"] * 101, "levels deep"),
        (["NONE", b"p%d\n" % (2**61 - 1)], "gives a value too large a number"),
        (["NONE", b"p-1\n"], "gives a value too large a number"),
        ([ORDERED_DICT, "EMPTY_DICT", "TUPLE1", "REDUCE"], "damaged"),
    ],
)
def test_it_is_refused(parts, problem):
    with pytest.raises(RefusalError, match=problem):
        read(*parts, size=1000)


def test_a_tensor_reaches_to_the_last_number_of_its_storage_and_no_further():
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"

    def tensor(offset: int, metadata: bytes = b"}"):
        numbers = number(offset) + number(2) + b"\x85" + number(1) + b"\x85" + b"\x89}" + metadata
        call = rebuild + b"(" + storage() + numbers + b"tR"
        return read(call, read_storage=lambda key, dtype, count: torch.arange(3.0))

    assert tensor(1).tolist() == [1, 2]
    with pytest.raises(RefusalError, match="a damaged tensor"):
        tensor(1, b"}" + text("neg") + b"\x88s")  # a view that negates
    with pytest.raises(RefusalError, match="a damaged storage"):
        read(storage(key=number(0)), read_storage=lambda key, dtype, count: torch.zeros(2))
    with pytest.raises(RefusalError, match="a tensor of 2 numbers outside its storage of 3"):
        tensor(2)


def test_a_pickle_of_too_many_opcodes_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(pickles, "_MAX_OPCODES", 20)
    assert read(*["NONE"] * 20) is None
    with pytest.raises(RefusalError, match="more than 20 opcodes"):
        read(*["NONE"] * 21, size=1000)


def test_what_is_copied_again_and_again_is_counted_although_nothing_of_it_is_kept():
    # 10,000 pairs, and 1,000 calls that copy them: ten million in a file of 100 KB.
    pair = text("a") + CODES["NONE"] + CODES["TUPLE2"]
    pairs = b"]q\x00(" + pair * 10_000 + b"e"
    calls = (ORDERED_DICT + b"h\x00\x85R") * 1000
    with pytest.raises(RefusalError, match="again and again"):
        read(pairs, calls, "NONE")
    # The same pairs in a tuple, and as the arguments themselves.
    for calls in ((ORDERED_DICT + b"h\x00\x85R") * 1000, (b"cnumpy\nndarray\nh\x00R") * 1000):
        with pytest.raises(RefusalError, match="again and again"):
            read(b"(" + pair * 10_000 + b"tq\x00", calls, "NONE")
    # 1 MB of text, and 100 arrays that encode it as bytes.
    shared = text("\x00" * 2**20) + b"q\x00"
    arrays = array(b"h\x00", "u1", 2**20) * 100
    with pytest.raises(RefusalError, match="claims more than"):
        read(shared, arrays, "NONE")


def test_the_key_of_a_storage_is_short_as_each_tensor_looks_it_up():
    def storage(key: str):
        kind = text("storage") + b"ctorch\nByteStorage\n"
        pid = b"(" + kind + text(key) + text("cpu") + number(1) + b"tQ"
        tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + number(0)
        data = tensor + number(1) + b"\x85" + number(1) + b"\x85\x89}tR."
        return read_pickle(BytesIO(data), 100, lambda key, dtype, n: torch.zeros(n, dtype=dtype))

    assert storage("0").tolist() == storage("9" * 20).tolist() == [0]
    with pytest.raises(RefusalError, match="damaged storage"):
        storage("0" * 60_000)

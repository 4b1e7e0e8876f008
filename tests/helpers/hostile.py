"""Files that look like weights and are not: made alike on every run.

A payload that is executed leaves a file in the folder ``markers``.
"""

import gzip
import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.torch
import torch


class Call:
    """Pickles as a call of the function ``module.name``."""

    def __init__(self, target: str, *arguments):
        self.target, self.arguments = target, arguments


class _Pickler(pickle._Pickler):  # the Python one: a name need not exist to be written
    dispatch = dict(pickle._Pickler.dispatch)

    def save_call(self, call: Call):
        self._name(call.target)
        self.save(call.arguments)
        self.write(pickle.REDUCE)
        self.memoize(call)

    def _name(self, target: str):
        module, _, name = target.rpartition(".")
        if self.proto >= 4:
            self.save(module)
            self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    dispatch[Call] = save_call


def pickled(value, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol).dump(value)
    return file.getvalue()


def calls(markers: Path) -> dict[str, Call]:
    """Calls of functions that no weights need; most would leave a marker."""
    shell = f"touch {markers}/ran"
    touch = f"__import__('os').system('{shell}')"
    return {
        "os_system": Call("os.system", shell),
        "posix_system": Call("posix.system", shell),
        "subprocess_popen": Call("subprocess.Popen", ["sh", "-c", shell]),
        "subprocess_output": Call("subprocess.check_output", ["sh", "-c", shell]),
        "eval": Call("builtins.eval", touch),
        "eval_py2": Call("__builtin__.eval", touch),
        "exec": Call("builtins.exec", touch),
        "getattr": Call("builtins.getattr", Call("importlib.import_module", "os"), "system"),
        "import": Call("builtins.__import__", "antigravity"),
        "open": Call("builtins.open", f"{markers}/opened", "w"),
        "pty_spawn": Call("pty.spawn", ["sh", "-c", shell]),
        "runstring": Call("numpy.testing._private.utils.runstring", touch, {}),
        "numpy_load": Call("numpy.load", "x.npy", None, True),
        "numpy_memmap": Call("numpy.memmap", f"{markers}/opened", "u1", "w+", 0, (1,)),
        "torch_load": Call("torch.load", "other.pth"),
        "torch_hub": Call("torch.hub.load", "owner/repository", "model"),
        "torch_hub_file": Call("torch.hub.load_state_dict_from_url", "http://127.0.0.1:9/x.pth"),
        "torch_jit": Call("torch.jit.load", "x.pt"),
        "torch_compile": Call("torch.utils.cpp_extension.load_inline", "x", touch),
        "storage": Call("torch.storage.UntypedStorage", 1 << 40),
        "tensor": Call("torch.FloatTensor", 1 << 40),
        "from_type": Call(
            "torch._utils._rebuild_from_type_v2", Call("os.system", shell), None, (), {}
        ),
        "sparse": Call("torch._utils._rebuild_sparse_tensor", 0, ()),
        "meta": Call("torch._utils._rebuild_meta_tensor_no_storage", 0, (1 << 50,), (1,), False),
        "pickle_loads": Call("pickle.loads", pickle.dumps(1)),
        "nested": Call("pickle.loads", pickled(Call("os.system", shell))),
        "partial": Call("functools.partial", Call("os.system", shell)),
        "reduce": Call("functools.reduce", Call("builtins.eval", touch), [1]),
        "attrgetter": Call("operator.attrgetter", "system"),
        "map": Call("builtins.map", Call("builtins.eval", touch), ["1"]),
        "copyreg": Call("copyreg._reconstructor", Call("builtins.eval", touch), object, None),
        "newobj": Call("copyreg.__newobj__", Call("builtins.eval", touch)),
        "function": Call("types.FunctionType", Call("builtins.compile", touch, "x", "exec"), {}),
        "ctypes": Call("ctypes.CDLL", "libc.so.6"),
        "runpy": Call("runpy.run_path", "x.py"),
        "yaml": Call("yaml.unsafe_load", f"!!python/object/apply:os.system ['{shell}']"),
        "detectron2": Call("detectron2.utils.env.setup_custom_environment", "/tmp/x.py"),
        "dotted": Call("collections.abc.sys.modules", "os"),
        "dict_class": Call("builtins.type", "X", (), {}),
        "codec": Call("_codecs.encode", "x", "rot13"),
        "decode": Call("_codecs.decode", b"x", "zip"),
        "codec_lookup": Call("_codecs.register", Call("builtins.eval", touch)),
    }


_ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85c_codecs\nencode\n"
    b"(X\x01\0\0\0bX\x06\0\0\0latin1tRtR"
)
_FLOATS = (
    b"cnumpy\ndtype\n(X\x02\0\0\0f4K\x00K\x01tR(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb"
)


def _bytes(data: bytes) -> bytes:
    """Opcodes for bytes, as protocol 2 writes them."""
    text = data.decode("latin1").encode()
    size = struct.pack("<I", len(text))
    return b"c_codecs\nencode\nX" + size + text + b"X\x06\0\0\0latin1\x86R"


def _array_pickle(shape: bytes, dtype: bytes, data: bytes) -> bytes:
    """``{"w": array}`` from the opcodes of its parts."""
    parts = b"(K\x01" + shape + dtype + b"\x89" + data + b"t"
    return b"\x80\x02}X\x01\0\0\0w" + _ARRAY + parts + b"bs."


def _long(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def raw_pickles(markers: Path) -> dict[str, bytes]:
    """Programs that no pickler writes."""
    command = b"V" + f"touch {markers}/ran".encode() + b"\n"
    call = b"cos\nsystem\n" + command + b"\x85R"
    head = b"\x80\x02"
    deep = b")" + b"\x85" * 300_000
    wide = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))  # t = (t, t), 60 times
    sizes = b"".join(b"ctorch\nSize\nh%ch%c\x86\x85Rq%c" % (i - 1, i - 1, i) for i in range(1, 60))
    laugh = b"(]q\x00" + b"".join(b"](h%ch%ceq%c" % (i - 1, i - 1, i) for i in range(1, 90)) + b"l"
    ordered = b"ccollections\nOrderedDict\n)R"
    weights = b"}X\x01\0\0\0wK\x01s"

    array, floats, state = _ARRAY, _FLOATS, _array_pickle
    objects = floats.replace(b"f4", b"O8").replace(b"X\x01\0\0\0<", b"X\x01\0\0\0|")
    text = b"X\x04\0\0\0abcd"
    collide = b"".join(_long(i * (2**61 - 1)) + b"N" for i in range(1, 300))
    floats_ = b"".join(b"G" + struct.pack(">d", i * 2.0**61) + b"N" for i in range(1, 300))
    big = b"X" + struct.pack("<I", 1 << 16) + b"x" * (1 << 16) + b"q\x01"
    latin = b"X\x06\0\0\0latin1q\x02"
    pairs = b"](" + b"".join(b"](X\x01\0\0\0%cNe" % i for i in range(65, 90)) + b"eq\x01"
    return {
        "colliding_keys": head + b"}(" + collide + b"u.",
        "colliding_keys_dict": head + b"(" + collide + b"d.",
        "colliding_float_keys": head + b"}(" + floats_ + b"u.",
        "colliding_pairs": head + ordered[:-2] + b"](](" + _long(2**61 - 1) + b"Nee\x85R.",
        "encode_again_and_again": head
        + b"c_codecs\nencode\nq\x00"
        + big
        + latin
        + b"h\x00h\x01h\x02\x86R" * 2000
        + b".",
        "pairs_again_and_again": head
        + ordered[:-2]
        + b"q\x00"
        + pairs
        + b"h\x00h\x01\x85R" * 100_000
        + b".",
        "text_again_and_again": head + b"}X\x01\0\0\0w](" + big + b"h\x01" * 5000 + b"es.",
        "bare_call": head + call + b".",
        "call_then_dict": head + call + b"0}.",
        "call_as_key": head + b"}" + call + b"K\x01s.",
        "call_in_state": head + ordered + b"}X\x05\0\0\0items" + call + b"sb.",
        "inst": b"(" + command + b"ios\nsystem\n.",
        "obj": head + b"(cos\nsystem\n" + command + b"o.",
        "newobj": head + b"cos\nsystem\n" + command + b"\x85\x81.",
        "newobj_ex": b"\x80\x04cbuiltins\nobject\n)}\x92.",
        "extension": head + b"\x82\x01.",
        "extension_4": head + b"\x84\x01\0\0\0.",
        "persistent": b"(Pos.system\nl.",
        "persistent_binary": head + b"X\x02\0\0\0osQ.",
        "frozenset": b"\x80\x04(K\x01\x91.",
        "next_buffer": b"\x80\x05\x97.",
        "state_of_class": head + b"cnumpy\nndarray\n(N}X\x0c\0\0\0__setstate__K\x01stb.",
        "state_of_function": head + b"cnumpy.core.multiarray\n_reconstruct\n"
        b"(N}X\x0c\0\0\0__defaults__K\x01stb.",
        "state_of_dtype": head + b"cnumpy\ndtype\n(N}X\x07\0\0\0__new__K\x01stb.",
        "state_of_dict_class": head + b"ccollections\nOrderedDict\n(N}X\x05\0\0\0itemsK\x01stb.",
        "setstate_twice": head + b"}X\x01\0\0\0w" + array + b"K\x01bK\x02bs.",
        "memo_unknown": head + b"h\x07.",
        "memo_huge": head + b"}r\xff\xff\xff\x7f.",
        "memo_huge_text": b"}p99999999999\n.",
        "memo_negative": b"}p-1\n.",
        "memo_cycle": head + b"]q\x00h\x00a.",
        "memo_dict_cycle": head + b"}q\x00X\x01\0\0\0wh\x00s.",
        "deep_tuple_key": head + b"}" + deep + b"K\x01s.",
        "deep_tuple": head + b"}X\x01\0\0\0w" + deep + b"s.",
        "wide_tuple_key": head + b"}" + wide + b"K\x01s.",
        "wide_size_key": head + b"}()q\x00" + sizes + b"tK\x01s.",
        "deep_list": head + b"}X\x01\0\0\0w" + b"](" * 50_000 + b"e" * 50_000 + b"s.",
        "laughing_list": head + b"}X\x05\0\0\0model" + laugh + b"s.",
        "laughing_key": head + b"}" + laugh + b"K\x01s.",
        "bytes_huge": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",
        "bytes_big": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"x.",
        "bytearray_huge": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        "text_huge": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
        "long_huge": head + b"\x8b\xff\xff\xff\x7f.",
        "frame_huge": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}.",
        "digits": b"(L" + b"9" * 100_000 + b"L\nl.",
        "no_stop": head + weights,
        "no_value": head + b".",
        "two_values": head + weights + weights + b".",
        "mark_left": head + b"(.",
        "unmarked": head + b"}u.",
        "underflow": head + b"sR.",
        "opcode": head + b"\xee.",
        "protocol_9": b"\x80\x09}.",
        "trailing": head + weights + b"." + call + b".",
        "many_opcodes": head + b"}X\x01\0\0\0w" + b"N" * 1_100_000 + b"s.",
        "object_array": state(b"K\x01\x85", objects, b"]" + call + b"a"),
        "object_bytes": state(b"K\x01\x85", objects, b"X\x08\0\0\0abcdefgh"),
        "array_no_state": head + b"}X\x01\0\0\0w" + array + b"s.",
        "array_huge": state(b"\x8a\x05\0\0\0\0\x01\x85", floats, text),
        "array_overflow": state(b"\x8a\x09\0\0\0\0\0\0\0\0\x40\x8a\x01\x04\x86", floats, text),
        "array_negative": state(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", floats, text),
        "array_short": state(b"K\x02\x85", floats, text),
        "array_shape_text": state(b"X\x01\0\0\0a", floats, text),
        "array_shape_list": state(b"](K\x01e", floats, text),
        "array_shape_bool": state(b"\x88\x85", floats, text),
        "array_33_dims": state(b"(" + b"K\x01" * 33 + b"t", floats, text),
        "array_dtype_text": state(b"K\x01\x85", b"X\x02\0\0\0f4", text),
        "array_dtype_class": state(b"K\x01\x85", b"cnumpy\ndtype\n", text),
        "array_data_list": state(b"K\x01\x85", floats, b"](K\x01e"),
        "array_data_int": state(b"K\x01\x85", floats, b"K\x01"),
        "array_order": state(b"K\x01\x85", floats.replace(b"<NNN", b"!NNN"), text),
        "array_subtype": state(b"K\x01\x85", floats.replace(b"<NNN", b"<)NN"), text),
        "array_fields": state(b"K\x01\x85", floats.replace(b"<NNN", b"<NN}"), text),
        "array_datetime": state(b"K\x01\x85", floats.replace(b"f4", b"M8"), b"X\x08\0\0\0abcdefgh"),
        "array_void": state(b"K\x01\x85", floats.replace(b"f4", b"V4"), text),
        "matrix": head + b"cnumpy\nmatrix\n" + text + b"\x85R.",
        "record": head + b"cnumpy\nrecord\n" + text + b"\x85R.",
        "encode_zip": head + b"c_codecs\nencode\n" + text + b"X\x03\0\0\0zip\x86R.",
        "encode_call": head + b"c_codecs\nencode\n" + call + b"X\x06\0\0\0latin1\x86R.",
    }


def _saved(value, **kwargs) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **kwargs)
    return file.getvalue()


def _weights() -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.arange(8.0).reshape(2, 4), "norm.running_var": torch.ones(3)}


class _Storage:
    """A reference to a storage, as PyTorch's pickles have them."""

    def __init__(self, *pid):
        self.pid = pid


class Name(str):
    """Pickles as the function or class that it names."""


class _TorchPickler(_Pickler):
    dispatch = dict(_Pickler.dispatch)

    def persistent_id(self, value):
        return value.pid if isinstance(value, _Storage) else None

    def save_name(self, name: Name):
        self._name(name)

    dispatch[Name] = save_name


def _torch_pickled(value) -> bytes:
    file = io.BytesIO()
    _TorchPickler(file, 2).dump(value)
    return file.getvalue()


def zipped(data: bytes, records: dict[str, bytes], **kwargs) -> bytes:
    """PyTorch's zip container around a pickle and its storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **kwargs) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in {"archive/version": b"3\n", **records}.items():
            archive.writestr(name, content)
    return file.getvalue()


def legacy(data: bytes, keys: bytes = pickle.dumps([], 2), storages: bytes = b"") -> bytes:
    """PyTorch's container of before version 1.6 around a pickle."""
    sizes = {"short": 2, "int": 4, "long": 4}
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    start = [0x1950A86A20F9469CFC6C, 1001, info]
    return b"".join(pickle.dumps(part, 2) for part in start) + data + keys + storages


_TWO = _Storage("storage", Name("torch.FloatStorage"), "0", "cpu", 2)
_TWO_LEGACY = _Storage(*_TWO.pid, None)  # the older container has a sixth part


def tensor(storage=_TWO, offset=0, shape=(2,), stride=(1,), rebuild="_rebuild_tensor_v2") -> Call:
    return Call(f"torch._utils.{rebuild}", storage, offset, shape, stride, False, {})


def torch_pickle() -> bytes:
    """A sound one: ``w`` is two numbers of record 0."""
    return _torch_pickled({"model": {"w": tensor()}})


def torch_pickles() -> dict[str, bytes]:
    """Tensors that do not fit their storage (8 bytes, record 0), and other references."""
    kind = Name("torch.FloatStorage")

    values = {
        "numel": tensor(_Storage("storage", kind, "0", "cpu", 1 << 20), shape=(1 << 20,)),
        "numel_huge": tensor(_Storage("storage", kind, "0", "cpu", 1 << 60)),
        "numel_negative": tensor(_Storage("storage", kind, "0", "cpu", -1)),
        "numel_text": tensor(_Storage("storage", kind, "0", "cpu", "2")),
        "itemsize": tensor(_Storage("storage", Name("torch.DoubleStorage"), "0", "cpu", 2)),
        "no_record": tensor(_Storage("storage", kind, "7", "cpu", 2)),
        "other_record": tensor(_Storage("storage", kind, "../version", "cpu", 2)),
        "key_number": tensor(_Storage("storage", kind, 0, "cpu", 2)),
        "device": tensor(_Storage("storage", kind, "0", 7, 2)),
        "kind": tensor(_Storage("storage", Name("torch.Size"), "0", "cpu", 2)),
        "kind_text": tensor(_Storage("storage", "FloatStorage", "0", "cpu", 2)),
        "short": tensor(_Storage("storage", kind)),
        "view": tensor(_Storage("storage", kind, "0", "cpu", 2, ("1", 0, 1 << 40))),
        "module": tensor(_Storage("module", kind, "x.py", "import os")),
        "no_storage": tensor("0"),
        "legacy_numel": tensor(_Storage("storage", kind, "0", "cpu", 1 << 60, None)),
        "legacy_key": tensor(_Storage("storage", kind, "1", "cpu", 2, None)),
        "legacy_offset": tensor(_TWO_LEGACY, offset=1),
        "legacy_shape": tensor(_TWO_LEGACY, shape=(1 << 40,), stride=(0,)),
        "offset": tensor(offset=1),
        "offset_huge": tensor(offset=1 << 62),
        "offset_negative": tensor(offset=-1),
        "shape": tensor(shape=(3,)),
        "shape_huge": tensor(shape=(1 << 40,)),
        "shape_negative": tensor(shape=(-2,)),
        "shape_list": tensor(shape=[2]),
        "stride": tensor(stride=(1 << 30,)),
        "stride_zero": tensor(shape=(1 << 40,), stride=(0,)),
        "stride_overlaps": tensor(shape=(2, 2), stride=(0, 1)),
        "stride_zero_small": tensor(shape=(2, 1 << 20), stride=(1, 0)),
        "stride_negative": tensor(stride=(-1,)),
        "stride_count": tensor(stride=(1, 1)),
        "rebuild": tensor(rebuild="_rebuild_nested_tensor"),
        "parameter": Call("torch._utils._rebuild_parameter", "no tensor", True, {}),
    }
    return {name: _torch_pickled({"model": {"w": value}}) for name, value in values.items()}


_RECORDS = {"archive/data/0": struct.pack("<2f", 1, 2)}


def twins() -> dict[str, bytes]:
    """Valid files, made by the same functions: what is refused is the difference from them."""
    two = struct.pack("<q2f", 2, 1, 2)
    header = json.dumps({"w": _ONE}).encode()
    return {
        "zip": zipped(_torch_pickled({"model": {"w": tensor()}}), _RECORDS),
        "legacy": legacy(
            _torch_pickled({"model": {"w": tensor(_TWO_LEGACY)}}), pickle.dumps(["0"], 2), two
        ),
        "pkl": _array_pickle(b"K\x02\x85", _FLOATS, _bytes(two[8:])),
        "safetensors": struct.pack("<Q", len(header)) + header + two[8:],
    }


def _two_directories(first: dict[str, bytes], second: dict[str, bytes], *, within: bool) -> bytes:
    """A zip archive with a directory for Python's reader and one for PyTorch's.

    Python takes the 64-bit end record that stands before its locator, PyTorch the one that the
    locator points to. The second one's records lie between the others and the first directory, or
    ``within`` the bytes of a record.
    """

    def local(name: bytes, data: bytes) -> bytes:
        sizes = (zlib.crc32(data), len(data), len(data), len(name), 0)
        return struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, *sizes) + name + data

    def central(name: bytes, data: bytes, start: int) -> bytes:
        sizes = (zlib.crc32(data), len(data), len(data), len(name))
        rest = (*sizes, 0, 0, 0, 0, 0, start)
        return struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 33, *rest) + name

    def whole(records: dict, start: int) -> tuple[bytes, bytes]:
        body = directory = b""
        for name, data in records.items():
            directory += central(name.encode(), data, start + len(body))
            body += local(name.encode(), data)
        return body, directory

    def end(records: dict, directory: bytes, start: int) -> bytes:
        count = len(records)
        counts = (44, 45, 45, 0, 0, count, count, len(directory), start)
        return struct.pack("<4sQ2H2L4Q", b"PK\6\6", *counts)

    body, _ = whole(first, 0)
    start = len(body) + (30 + len("archive/hidden") if within else 0)
    hidden, directory = whole(second, start)
    hidden += directory + end(second, directory, start + len(hidden))
    second_end = start + len(hidden) - 56
    first = {**first, "archive/hidden": hidden} if within else first
    body, directory = whole(first, 0)
    body += b"" if within else hidden
    return b"".join(
        [
            body,
            directory,
            end(first, directory, len(body)),
            struct.pack("<4sLQL", b"PK\6\7", 0, second_end, 1),
            struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0),
        ]
    )


def _torch_files(markers: Path) -> Iterator[tuple[str, bytes]]:
    two, good = _RECORDS, _torch_pickled({"model": {"w": tensor()}})
    keys, storages = pickle.dumps(["0"], 2), struct.pack("<q2f", 2, 1, 2)
    for name, data in torch_pickles().items():
        if not name.startswith("legacy"):
            yield f"zip_{name}.pth", zipped(data, two)
        if name.startswith("legacy") or name in ("view", "module"):
            yield f"of_{name}.pth", legacy(data, keys, storages)
    old = _torch_pickled({"model": {"w": tensor(_TWO_LEGACY)}})
    yield "legacy_keys.pth", legacy(pickled({}), pickled(Call("os.system", f"touch {markers}/ran")))
    yield "legacy_no_storage.pth", legacy(old, keys)
    yield "legacy_unlisted.pth", legacy(old)
    yield "legacy_short_storage.pth", legacy(old, keys, storages[:-1])
    yield "legacy_wrong_size.pth", legacy(old, keys, struct.pack("<q2f", 9, 1, 2))
    yield "legacy_wrong_key.pth", legacy(old, pickle.dumps(["1"], 2), storages)
    yield (
        "zip_bomb.pth",
        zipped(good, {"archive/data/0": bytes(100 << 20)}, compression=zipfile.ZIP_DEFLATED),
    )
    yield "zip_compressed.pth", zipped(good, two, compression=zipfile.ZIP_DEFLATED)
    yield "zip_bzip2.pth", zipped(good, two, compression=zipfile.ZIP_BZIP2)
    yield "zip_torchscript.pth", zipped(good, {**two, "archive/constants.pkl": b"}."})
    yield "zip_case.pth", zipped(good, {**two, "archive/DATA.PKL": pickled(calls(markers)["eval"])})
    yield "zip_folder.pth", zipped(good, {**two, "other/data.pkl": good})
    yield "zip_climbs.pth", zipped(good, {**two, "../outside": b"x"})
    yield (
        "zip_null_name.pth",
        zipped(good, {**two, "archive/data.pk1": b"x"}).replace(b"data.pk1", b"data/0\0x"),
    )
    yield "zip_no_pickle.pth", zipped(good, two).replace(b"data.pkl", b"data.txt")
    whole = zipped(good, two)
    yield "zip_checksum.pth", whole.replace(struct.pack("<2f", 1, 2), struct.pack("<2f", 1, 3))
    yield "zip_comment.pth", whole[:-2] + b"\x04\0PK\5\6"
    yield "zip_twice.pth", whole + whole
    records = {"archive/data.pkl": good, **two}
    for place, within in (("between", False), ("within", True)):
        other = {**records, "archive/data.pkl": pickled(calls(markers)["eval"])}
        yield f"zip_directory_{place}.pth", _two_directories(records, other, within=within)
    yield "zip_trailing.pth", whole + b"x"
    yield "legacy_trailing.pth", legacy(old, keys, storages) + b"x"
    yield "legacy_then_zip.pth", legacy(old, keys, storages) + whole
    empty = legacy(_torch_pickled({"model": {"w": 1}}))
    tar_like = bytearray(empty.ljust(1024, b"\0"))
    tar_like[257:262] = b"ustar"
    yield "legacy_and_tar.pth", bytes(tar_like)
    yield "zip_prefix.pth", b"PK\3\4" + whole
    yield "zip_encrypted.pth", whole.replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1")
    end = whole.rindex(b"PK\5\6")
    yield "zip_sizes.pth", whole[: end - 4] + b"\xff" * 4 + whole[end:]
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickled(calls(markers)["eval"])
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    yield "legacy_tar.pth", tar.getvalue()
    archive = io.BytesIO()
    np.savez(archive, w=np.ones(2))
    yield "numpy.npz", archive.getvalue()


def _damaged_files() -> Iterator[tuple[str, bytes]]:
    """Valid files cut short, and with a bit flipped where the structure is."""
    weights = _weights()
    arrays = {"model": {name: value.numpy() for name, value in weights.items()}}
    arrays["__author__"] = "someone"
    files = {
        "zip": _saved(weights),
        "legacy": _saved(weights, _use_new_zipfile_serialization=False),
        "pkl": pickle.dumps(arrays, 2),
        "pkl4": pickle.dumps(arrays, 4),
        "safetensors": safetensors.torch.save(weights),
    }
    for name, data in files.items():
        for part in (1, 4, 9, 16, 40, len(data) // 3, len(data) // 2, len(data) - 1):
            yield f"cut_{name}_{part}", data[:part]
    zip_, end = files["zip"], files["zip"].rindex(b"PK\5\6")
    for position in (0, 30, 70, 100, end - 60, end):
        yield f"flip_zip_{position}", _flip(zip_, position)
    for position in (0, 3, 8, 14, 16, 19):
        yield f"flip_legacy_{position}", _flip(files["legacy"], position)
    for position in (0, 2, 5):
        yield f"flip_pkl_{position}", _flip(files["pkl"], position)
    header = 8 + struct.unpack("<Q", files["safetensors"][:8])[0]
    for position in (0, 6, 8, 9, 24, header // 2, header - 9):
        yield f"flip_safetensors_{position}", _flip(files["safetensors"], position)


def _flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x80]) + data[position + 1 :]


_ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def _safetensors_files() -> Iterator[tuple[str, bytes]]:
    one = _ONE

    def file(header, data: bytes = bytes(8), size: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if size is None else size) + text + data

    def with_(**change) -> bytes:
        return file({"w": {**one, **change}})

    cases = {
        "size_0": file({"w": one}, size=0),
        "size_more": file({"w": one}, size=10_000),
        "size_gigabytes": file({"w": one}, size=1 << 31),
        "size_huge": file({"w": one}, size=(1 << 64) - 1),
        "size_less": file({"w": one}, size=20),
        "broken": file(b'{"w": '),
        "list": file(b"{[]}"),
        "null": file({"w": None}),
        "nothing": file({}),
        "deep": file(b'{"a":' * 50_000),
        "deep_metadata": file(b'{"__metadata__":' + b"[" * 50_000),
        "not_utf8": file(b'{"\xff\xfe":1}'),
        "metadata_number": file({"__metadata__": {"a": 1}, "w": one}),
        "metadata_list": file({"__metadata__": [], "w": one}),
        "dtype": with_(dtype="OBJECT"),
        "dtype_number": with_(dtype=7),
        "dtype_wide": with_(dtype="F64"),
        "shape": with_(shape=[3]),
        "shape_negative": with_(shape=[-2]),
        "shape_text": with_(shape="2"),
        "shape_float": with_(shape=[2.5]),
        "shape_overflow": with_(shape=[1 << 32, 1 << 32]),
        "shape_huge": with_(shape=[1 << 62]),
        "shape_product": with_(shape=[1 << 63, 2, 2]),
        "offsets_swapped": with_(data_offsets=[8, 0]),
        "offsets_past": with_(data_offsets=[0, 1 << 40]),
        "offsets_gap": with_(data_offsets=[4, 12]),
        "offsets_negative": with_(data_offsets=[-8, 0]),
        "offsets_one": with_(data_offsets=[0]),
        "overlap": file({"a": one, "b": one}),
        "data_missing": file({"w": one}, b""),
        "data_more": file({"w": one}, bytes(99)),
        "nan": file({"w": one}, struct.pack("<2f", 1, float("nan"))),
        "infinite": file({"w": one}, struct.pack("<2f", 1, float("-inf"))),
    }
    for name, data in cases.items():
        yield f"safetensors_{name}.safetensors", data
    # Punctuation and digits of a valid header, replaced: never a header of the same tensors.
    chance = random.Random(0)
    valid = safetensors.torch.save(_weights())
    size = struct.unpack("<Q", valid[:8])[0]
    places = [i for i in range(8, 8 + size) if valid[i : i + 1] in b'{}[]:,"']
    for i in range(24):
        position = chance.choice(places)
        new = chance.choice([c for c in b'{}[]:,"\\\x00\xff' if c != valid[position]])
        changed = valid[:position] + bytes([new]) + valid[position + 1 :]
        yield f"safetensors_fuzzed_{i}.safetensors", changed


def _other_files() -> Iterator[tuple[str, bytes]]:
    weights = _weights()
    yield "empty.pth", b""
    yield "page.pth", b"\n<!DOCTYPE html><html><title>404 Not Found</title></html>"
    yield "page.pkl", b"<html><body>Sign in</body></html>"
    yield "denied.pth", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"
    yield "answer.pth", b'{"message": "Not Found"}'
    yield "pointer.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    yield "text.pth", b"connection reset by peer\n"
    yield "packed.pth", gzip.compress(b"weights", mtime=0)
    yield "picture.pth", b"\x89PNG\r\n\x1a\n" + bytes(99)
    yield "zeros.pth", bytes(4096)
    for i in range(8):
        yield f"random_{i}.pth", random.Random(i).randbytes(5000)
    for name, value in {
        "nested": {"model": {"state_dict": weights}},
        "two_sets": {"model": weights, "state_dict": weights},
        "no_tensor": {"model": {**weights, "epoch": 3}},
        "list": [weights["conv.weight"]],
        "tensor": weights["conv.weight"],
        "nothing": {"model": {}},
        "number_key": {"model": {1: weights["conv.weight"]}},
        "nan": {"model": {"w": torch.tensor([1.0, float("nan")])}},
        "beyond_float32": {"w": torch.tensor([1.0, 1e300], dtype=torch.float64)},
        "complex": {"w": torch.ones(2, dtype=torch.complex64)},
        "escapes": {"w\x1b[2J\r\u202e": torch.ones(2)},
        "infinite": {"w": torch.tensor([1.0, float("inf")], dtype=torch.float16)},
        "whole_module": {"model": torch.nn.Linear(1, 1)},
        "sparse": {"w": torch.eye(2).to_sparse()},
        "long_name": {"w\n\x1b[31m" * 10_000: torch.tensor(float("nan"))},
        "many_views": {str(i): torch.ones(1)[:1].expand(1 << 20) for i in range(2)},
    }.items():
        yield f"{name}.pth", _saved(value)
    for name, value in {
        "nested": {"model": {"model": {"w": np.ones(1)}}},
        "objects": {"model": {"w": np.array([{}, None])}},
        "texts": {"model": {"w": np.array(["text"])}},
        "structured": {"model": {"w": np.zeros(1, [("a", "f4")])}},
        "date": {"model": {"w": np.zeros(1, "M8[s]")}},
        "complex": {"model": {"w": np.zeros(1, "c8")}},
        "unsigned": {"model": {"w": "text"}},
        "nan": {"model": {"w": np.array([np.nan], np.float32)}},
        "class": {"model": {"w": Path("x")}},
    }.items():
        yield f"{name}.pkl", pickle.dumps(value, 4)


def write_hostile_files(folder: Path, markers: Path) -> list[Path]:
    """Write all of them into ``folder``."""
    files: dict[str, bytes] = {}

    def add(name: str, data: bytes) -> None:
        assert name not in files, name
        files[name] = data

    for name, data in raw_pickles(markers).items():
        add(f"raw_{name}.pkl", data)
    some = ("bare_call", "inst", "memo_huge", "deep_tuple_key", "wide_tuple_key", "wide_size_key")
    for name in some:
        data = raw_pickles(markers)[name]
        add(f"raw_{name}_zip.pth", zipped(data, {}))
        add(f"raw_{name}_legacy.pth", legacy(data))
    for i, (name, call) in enumerate(calls(markers).items()):
        value = [call, {"model": call}, {"model": {"w": call}}, {"model": {}, "x": [call]}][i % 4]
        add(f"call_{name}.pkl", pickled(value, (0, 2, 4)[i % 3]))
        add(f"call_{name}_zip.pth", zipped(pickled(value), {}))
        add(f"call_{name}_legacy.pth", legacy(pickled(value)))
    for name, data in (*_torch_files(markers), *_damaged_files(), *_safetensors_files()):
        add(name, data)
    for name, data in _other_files():
        add(name, data)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]

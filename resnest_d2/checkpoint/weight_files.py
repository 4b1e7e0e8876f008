"""Files of weights, read without running anything in them, and written whole or not at all.

A file's first bytes, not its name, say which container it is: PyTorch's zip, PyTorch's older
sequence of pickles, a pickle of numpy arrays (Detectron2's ``.pkl``), or safetensors. No memory is
allocated for what a file only claims to hold. Pickles are interpreted in :mod:`.pickles`; PyTorch's
and Python's own readers are used only where the user trusts the file.
"""

import contextlib
import hashlib
import io
import json
import logging
import mmap
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from ..files import is_write_failure, write_failure_reason, writing
from ..text import printable
from .convert import recognise
from .pickles import MAGIC_NUMBER, CodeError, RefusalError, plain, read_pickle, require
from .record import RECORD_KEY, check_record

logger = logging.getLogger(__name__)

_LEGACY = pickle.dumps(MAGIC_NUMBER, protocol=2)
_LEGACY_VERSION = 1001
_DDP = "module."
_MAX_NAME = 1000  # characters
_IF_TRUSTED = (
    ". If you trust it like a program: resnest-d2 convert FILE OUT.pth --trust-pickle, which "
    "train and evaluate have too (in Python: trust_pickle=True)"
)


@dataclass(frozen=True)
class StoredWeights:
    """What a file of weights holds.

    Attributes:
        path: the file.
        tensors: on the CPU, by the names of the file, without the prefix ``module.`` of
            ``DistributedDataParallel``.
        container: ``"pth"``, ``"pkl"`` or ``"safetensors"``, from the contents.
        format: one of :data:`.convert.FORMATS`, from the names, or "" for another network's.
        metadata: what is stored beside the weights, e.g. the record that training writes. A
            ``.pkl`` of bare names gets the two entries that mark Caffe2's names for Detectron2.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    container: str
    format: str
    metadata: dict


def read_weights(path: str | os.PathLike, *, trust_pickle: bool = False) -> StoredWeights:
    """Read a file of weights.

    The weights are the whole file, or its entry ``model`` or ``state_dict``.

    Args:
        path: the file.
        trust_pickle: load any pickle, *which runs the code in it*. Only for a file whose origin
            you trust as you would trust a program.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of weights, damaged, one that could run code, weights that are not
            finite numbers, or a damaged record; the message names the file and the reason.
    """
    path = Path(path)
    with _refusals(path):
        container, content = _read(path, trust_pickle)
        if container != "safetensors":
            content = _unwrap(content) if container == "pth" else _unwrap_pickle(content)
        weights, metadata = content
        tensors = _tensors(weights)
    try:
        if RECORD_KEY in metadata:
            check_record(metadata[RECORD_KEY])
    except RefusalError as error:
        raise ValueError(f"{printable(path)} is damaged: {error}") from error
    try:
        format = recognise(tensors)
    except ValueError:
        format = ""
    if container == "pkl" and not (format or metadata):
        metadata = {"__author__": "Caffe2", "matching_heuristics": True}
    return StoredWeights(path, tensors, container, format, metadata)


def read_content(path: str | os.PathLike) -> dict:
    """Everything in a ``.pth``, as tensors and plain types; values need not be finite.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_weights`.
    """
    path = Path(path)
    with _refusals(path):
        container, content = _read(path, trust_pickle=False)
        require(container == "pth" and isinstance(content, dict), "it is no .pth with a dict")
    return content


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Say of each failure which file it is and why, in one line."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {printable(path)}")
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails in many ways: IndexError, struct.error, …
        reason = str(error)
        if not isinstance(error, RefusalError):
            first = (reason.strip().splitlines() or [type(error).__name__])[0]
            reason = f"it is damaged, cut short, or another kind of file ({first:.150})"
        raise ValueError(
            f"{printable(path)} is not a checkpoint of tensors and plain types: "
            f"{printable(reason, 290)}"
            f"{_IF_TRUSTED if isinstance(error, CodeError) else ''}"
        ) from error


def _read(path: Path, trust_pickle: bool) -> tuple[str, Any]:
    """Container and content; of safetensors the tensors and the metadata."""
    with open(path, "rb") as file:
        head = file.read(1024)
        require(head, "it is empty")
        if head[4:9] == b"\0\0\0\0{":  # behind eight bytes of the header's length
            return "safetensors", _read_safetensors(path)
        is_zip = head.startswith(b"PK\x03\x04")
        is_torch = is_zip or head.startswith(_LEGACY)
        require(is_torch or head[:1] in (b"\x80", b"(", b"}", b"c"), _what(head))
        container = "pth" if is_torch else "pkl"
        if trust_pickle:
            logger.warning(f"Loading {path} with its code, because its pickle is trusted")
            file.seek(0)
            if is_torch:
                return container, torch.load(file, map_location="cpu", weights_only=False)
            return container, pickle.load(file, encoding="latin1")
        if is_zip:
            return container, _read_zip(file)
        # Unlike a file, a map never allocates more than there is to read.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            if is_torch:
                return container, _read_legacy(view)
            content = read_pickle(view, len(view))
            require(not view.read(1), "its pickle ends before the file does")
            return container, content


def _what(head: bytes) -> str:
    """What another kind of file is."""
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<!--")):
        return "it is an HTML page, saved by a download that failed"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, the file itself was not fetched"
    if head[257:262] == b"ustar":
        return "it is a tar archive; PyTorch's own of before 2018 cannot be read safely"
    if all(byte >= 0x20 or byte in b"\t\n\r" for byte in head):
        return f"it is a text file, which begins {head[:40].decode('utf-8', 'replace')!r}"
    return f"it is another kind of file, or damaged (first bytes {head[:8].hex(' ')})"


# ---- containers ---------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> tuple[dict, dict]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise RefusalError(f"it is a damaged or cut safetensors file ({error})") from error
    return tensors, {name: _decoded(text) for name, text in metadata.items()}


def _decoded(text: str):
    """safetensors has texts only: :func:`write_weights` writes everything else as JSON."""
    if text[:1] in ("{", "["):
        try:
            return plain(json.loads(text), len(text))
        except (ValueError, RecursionError):
            pass
    return text


def _read_zip(file: io.BufferedReader):
    try:
        with zipfile.ZipFile(file) as archive:
            folder = _check_archive(archive, file)
            records = {info.filename.removeprefix(folder): info for info in archive.infolist()}
            big = "byteorder" in records and archive.read(records["byteorder"]) == b"big"
            storages: dict[str, torch.Tensor] = {}

            def read_storage(key: str, dtype: torch.dtype, numel: int) -> torch.Tensor:
                size, record = numel * dtype.itemsize, records.get(f"data/{key}")
                has = "none" if record is None else record.file_size
                require(has == size, f"its record {key:.40} should have {size} bytes and has {has}")
                if key not in storages:
                    storages[key] = _filled(archive.read(record), dtype, big)
                return storages[key].view(dtype)

            data = io.BytesIO(archive.read(records["data.pkl"]))
            return read_pickle(data, file.seek(0, io.SEEK_END), read_storage)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise RefusalError(f"it is a damaged or cut zip archive ({error})") from error


def _filled(data: bytes, dtype: torch.dtype, big_endian: bool = False) -> torch.Tensor:
    """A storage's elements, in memory of their own."""
    values = torch.empty(len(data) // dtype.itemsize, dtype=dtype)
    elements = np.frombuffer(data, f"u{dtype.itemsize if big_endian else 1}")
    values.view(torch.uint8).numpy()[:] = elements.byteswap().view("u1")
    return values


def _check_archive(archive: zipfile.ZipFile, file: io.BufferedReader) -> str:
    """Refuse what PyTorch never writes; the records' common folder, with its slash.

    Each byte belongs to one record, to the one directory, or to the end that points to it. Other
    programs, PyTorch's reader among them, then find the same records in the file as Python's.
    """
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    names = [info.filename for info in infos]
    folder = names[0].partition("/")[0] + "/" if names else ""
    require(
        f"{folder}data.pkl" in names, "it is a zip archive, but not PyTorch's: it has no data.pkl"
    )
    require(f"{folder}constants.pkl" not in names, "it is a TorchScript program, which is code")
    require(
        all(i.filename.isascii() and i.filename == i.orig_filename for i in infos)
        and all(name.startswith(folder) for name in names),
        "its zip archive has records with other names than PyTorch's",
    )
    different = len({name.lower() for name in names})
    require(different == len(names), "its zip archive has two records of one name")
    require(
        all(i.compress_type == zipfile.ZIP_STORED and not i.flag_bits & 1 for i in infos)
        and all(i.compress_size == i.file_size for i in infos),
        "its zip archive is compressed or encrypted, PyTorch's never are",
    )
    end = 0
    for start, size in [*((i.header_offset, i.file_size) for i in infos), (archive.start_dir, 0)]:
        # Behind a record, its sizes and checksum may be repeated.
        between = "its zip archive has something before or between its records"
        require(0 <= start - end <= (24 if end else 0), between)
        file.seek(start + 26)
        name, extra = struct.unpack("<HH", file.read(4))
        end = start + 30 + name + extra + size
    start, count = archive.start_dir, len(infos)
    size = sum(46 + len(i.filename) + len(i.extra) + len(i.comment) for i in infos)
    file.seek(start + size)
    tail = file.read(200)
    counts, sizes = [min(count, 0xFFFF)] * 2, [min(n, 0xFFFFFFFF) for n in (size, start)]
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *counts, *sizes, 0)
    large = struct.pack("<4sQ", b"PK\6\6", 44) + tail[12:16]  # versions
    large += struct.pack("<2L4Q", 0, 0, count, count, size, start)
    large += struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    known = tail in (last, large + last)
    require(known, "its zip archive has a second directory, or something after it")
    return folder


def _read_legacy(file: mmap.mmap):
    left = len(file)
    storages: dict[str, torch.Tensor] = {}

    def read_storage(key: str, dtype: torch.dtype, numel: int) -> torch.Tensor:
        nonlocal left
        if key not in storages:
            left -= numel * dtype.itemsize
            require(left >= 0, "its storages claim more bytes than the file has")
            storages[key] = torch.zeros(numel, dtype=dtype)
        same = storages[key].dtype == dtype and len(storages[key]) == numel
        require(same, "it describes a storage in two ways")
        return storages[key]

    # Magic number, version, the machine's sizes, the contents, the keys of the storages; then each
    # storage's number of elements and bytes.
    _, version, _ = (read_pickle(file, len(file)) for _ in range(3))
    require(version == _LEGACY_VERSION, f"it is of the version {version} of PyTorch's files")
    content = read_pickle(file, len(file), read_storage)
    keys = read_pickle(file, len(file))
    listed = isinstance(keys, list) and sorted(map(str, keys)) == sorted(storages)
    require(listed, "its list of storages is not that of its tensors")
    for key in map(str, keys):
        values = storages[key]
        numel, data = int.from_bytes(file.read(8), "little"), file.read(values.nbytes)
        whole = numel == len(values) and len(data) == values.nbytes
        require(whole, f"its storage {key:.40} is cut short or of another size")
        values.copy_(_filled(data, values.dtype))
    require(not file.read(1), "its last storage is not the end of the file")
    return content


# ---- contents -----------------------------------------------------------------------------------


def _unwrap(content) -> tuple[dict, dict]:
    """The weights of a ``.pth``, and the other entries."""
    kind = type(content).__name__
    require(isinstance(content, dict), f"it holds a {kind}, a checkpoint is a dict")
    wrappers = [name for name in ("model", "state_dict") if isinstance(content.get(name), dict)]
    require(len(wrappers) < 2, "it has both an entry 'model' and an entry 'state_dict'")
    if not wrappers:
        return dict(content), {}
    return content[wrappers[0]], {k: v for k, v in content.items() if k != wrappers[0]}


def _unwrap_pickle(content) -> tuple[dict, dict]:
    """The same of a ``.pkl``, by the rules of Detectron2's checkpointer."""
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        weights, metadata = _unwrap(content)
        plain_types = (str, int, float, bool, type(None))
        return weights, {k: v for k, v in metadata.items() if isinstance(v, plain_types)}
    if isinstance(content, dict) and isinstance(content.get("blobs"), dict):
        content = content["blobs"]
    weights, _ = _unwrap(content)
    return {k: v for k, v in weights.items() if not str(k).endswith("_momentum")}, {}


def _tensors(content: Mapping) -> dict[str, torch.Tensor]:
    """Finite plain tensors by name, or a refusal with the name of the one that is not."""
    require(content, "it holds no weights")
    tensors = {}
    for name, value in content.items():
        kind = type(name)
        require(kind is str, f"its weights have a name that is a {kind.__name__}, no text")
        if len(name) > _MAX_NAME or not name.isprintable():
            raise RefusalError(f"its weights have the name {name[:60]!r}, which no network has")
        value = _tensor(name, value)
        # Models compute in float32, where a larger float64 is infinite.
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise RefusalError(f"its {name} has NaN or infinite values, as float32 has them")
        tensors[name] = value
    if all(name.startswith(_DDP) for name in tensors):
        tensors = {name.removeprefix(_DDP): value for name, value in tensors.items()}
    return tensors


def _tensor(name: str, value) -> torch.Tensor:
    if isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
        native = value.astype(value.dtype.newbyteorder("="))  # a copy too: the file's is read-only
        try:
            return torch.from_numpy(native)
        except TypeError as error:
            raise RefusalError(f"its {name} is an array of {value.dtype}") from error
    kind = type(value).__name__
    require(isinstance(value, torch.Tensor), f"its {name} is a {kind}, not a tensor")
    usual = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    require(usual, f"its {name} is a sparse, quantised or empty tensor, not a plain one")
    require(not value.is_complex(), f"its {name} holds complex numbers")
    return value.detach()


# ---- writing ------------------------------------------------------------------------------------


def write_weights(
    tensors: Mapping[str, torch.Tensor],
    path: str | os.PathLike,
    *,
    metadata: Mapping | None = None,
) -> None:
    """Write a file of weights, whole or not at all.

    Args:
        path: a ``.pth`` holds ``{"model": tensors, **metadata}``, a ``.safetensors`` the metadata
            in its header, as JSON where they are no texts.
        metadata: values that JSON can hold.

    Raises:
        ValueError: another suffix, or metadata of other types.
        OSError: the disk is full, the folder read-only, …
    """
    path = Path(path)
    if path.suffix not in (".pth", ".safetensors"):
        raise ValueError(f"weights are written as .pth or .safetensors, got {path}")
    try:
        metadata = json.loads(json.dumps(dict(metadata or {})))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not written: its metadata are no plain types") from error
    # Copies, because a view would write its whole storage.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    try:
        with writing(path) as file:
            if path.suffix == ".pth":
                torch.save({"model": tensors, **metadata}, file)
            else:
                texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
                file.write(safetensors.torch.save(tensors, metadata={"format": "pt", **texts}))
    except RuntimeError as error:
        if not is_write_failure(error):
            raise
        raise OSError(f"{path} is not written: {write_failure_reason(error)[0]}") from error


def file_sha256(path: str | os.PathLike) -> str:
    """The sha256 of a file, 64 hex digits."""
    return file_digest(path, "sha256")


def file_digest(path: str | os.PathLike, algorithm: str) -> str:
    """The hash of a file by an algorithm of ``hashlib``, hex digits."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

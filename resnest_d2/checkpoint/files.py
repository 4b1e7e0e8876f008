"""Files of weights, read without running anything in them, and written whole or not at all.

The container is told from a file's first bytes, never from its name: PyTorch's zip, PyTorch's older
sequence of pickles, a pickle of numpy arrays (Detectron2's ``.pkl``), or safetensors. Nothing is
allocated that a file only claims to hold. The pickles are checked in :mod:`.pickles`.
"""

import hashlib
import io
import json
import logging
import mmap
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch

from .atomic import is_write_failure, write_failure_reason, writing
from .convert import recognise
from .pickles import (
    MAGIC_NUMBER,
    ArrayUnpickler,
    CodeError,
    NumpyNumbers,
    RefusalError,
    TensorChecker,
    read_pickle,
)

__all__ = ["StoredWeights", "file_sha256", "read_weights", "write_weights"]

logger = logging.getLogger(__name__)

_LEGACY = pickle.dumps(MAGIC_NUMBER, protocol=2)
_WRAPPERS = ("model", "state_dict")
_DDP = "module."
_IF_TRUSTED = (
    ". If you trust it like a program: resnest-d2 convert FILE OUT.pth --trust-pickle, which "
    "train and evaluate have too (in Python: trust_pickle=True)"
)
_SHARING = 4  # tensors may share bytes of the file, but not make a little file a lot of work
_PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class StoredWeights:
    """What a file of weights holds.

    Attributes:
        path: the file.
        tensors: on the CPU, by the names of the file; a prefix ``module.`` that all have
            (``DistributedDataParallel``) is taken away.
        container: ``"pth"``, ``"pkl"`` or ``"safetensors"``, from the contents.
        format: one of :data:`.convert.FORMATS`, from the names, or "" for another network's;
            :func:`.convert.recognise` then says what it saw.
        metadata: what lay beside the weights, e.g. the record that training writes. A ``.pkl`` of
            bare names, which are Caffe2's then, gets the two entries by which Detectron2's
            checkpointer marks it.
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
        ValueError: not a file of weights, damaged, one that could run code, or weights that are
            not finite; the message names the file and the reason.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        container, content, metadata = _read(path, trust_pickle)
        tensors = _tensors(content, path.stat().st_size)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails in many ways: IndexError, struct.error, …
        reason = str(error) if isinstance(error, RefusalError) else _damage(error)
        # It may quote the file, which may hold line breaks and terminal controls.
        reason = "".join(c if c.isprintable() else "?" for c in reason[:300])
        raise ValueError(
            f"{path} is not a checkpoint of tensors and plain types: {reason}"
            f"{_IF_TRUSTED if isinstance(error, CodeError) else ''}"
        ) from error
    try:
        format = recognise(tensors)
    except ValueError:
        format = ""
    if container == "pkl" and not (format or metadata):
        metadata = {"__author__": "Caffe2", "matching_heuristics": True}
    return StoredWeights(path, tensors, container, format, metadata)


def _damage(error: Exception) -> str:
    """The error's first line, without PyTorch's advice to load the file unsafely."""
    lines = str(error).strip().splitlines()
    if not lines or "weights_only" in lines[0] or "Weights only" in lines[0]:
        return "it is damaged or cut short"
    return f"it is damaged, cut short, or another kind of file ({lines[0]:.150})"


def _read(path: Path, trust_pickle: bool) -> tuple[str, dict, dict]:
    """Container, weights by name as the container holds them, and what lay beside them."""
    with open(path, "rb") as file:
        head = file.read(1024)
        if not head:
            raise RefusalError("it is empty")
        # Unlike a file, its map never allocates more than there is for a read.
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with view:
        if head[4:9] == b"\0\0\0\0{":  # behind eight bytes of the header's length
            return ("safetensors", *_read_safetensors(path))
        if head.startswith(b"PK\x03\x04"):
            return ("pth", *_unwrap(_read_zip(path, trust_pickle)))
        if head.startswith(_LEGACY):
            return ("pth", *_unwrap(_read_legacy(view, path, trust_pickle)))
        if head[:1] in (b"\x80", b"(", b"}", b"c"):
            return ("pkl", *_unwrap_pickle(_read_array_pickle(view, path, trust_pickle)))
    raise RefusalError(_what(head))


def _what(head: bytes) -> str:
    """A word on a file that is none of ours."""
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
    return tensors, {name: _decode(text) for name, text in metadata.items()}


def _decode(text: str):
    """safetensors knows texts only: :func:`write_weights` writes everything else as JSON."""
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return text


def _read_zip(path: Path, trust_pickle: bool):
    try:
        with zipfile.ZipFile(path) as archive:
            records = {info.filename: info for info in archive.infolist()}
            folder = next(iter(records), "").partition("/")[0]
            _check_archive(archive, folder, path)
            data = archive.read(f"{folder}/data.pkl")
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise RefusalError(f"it is a damaged or cut zip archive ({error})") from error

    def check_storage(key: str, size: int) -> None:
        record = records.get(f"{folder}/data/{key}")
        if record is None or record.file_size != size:
            has = "none" if record is None else f"{record.file_size}"
            raise RefusalError(f"its record {key:.40} should have {size} bytes and has {has}")

    if trust_pickle:
        return _torch_load(path, trusted=True)
    checker = TensorChecker(read_pickle(io.BytesIO(data)), check_storage)
    checker.load()
    return _torch_load(path, numpy_numbers=checker.has_numpy_numbers)


def _check_archive(archive: zipfile.ZipFile, folder: str, path: Path) -> None:
    """Refuse what PyTorch never writes. Its reader and Python's must see the same records."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if f"{folder}/data.pkl" not in names:
        raise RefusalError("it is a zip archive, but not PyTorch's: it has no data.pkl")
    if f"{folder}/constants.pkl" in names:
        raise RefusalError("it is a TorchScript program, which is code")
    if any(not name.isascii() or not name.startswith(f"{folder}/") for name in names) or any(
        info.filename != info.orig_filename for info in infos
    ):
        raise RefusalError("its zip archive has records with other names than PyTorch's")
    if len({name.lower() for name in names}) != len(names):
        raise RefusalError("its zip archive has two records of one name")
    if archive.comment or min(info.header_offset for info in infos) != 0:
        raise RefusalError("its zip archive has something before or after it")
    if any(
        info.compress_type != zipfile.ZIP_STORED
        or info.compress_size != info.file_size
        or info.flag_bits & 1
        for info in infos
    ):
        raise RefusalError("its zip archive is compressed or encrypted, PyTorch's never are")
    stated, size = sum(info.file_size for info in infos), path.stat().st_size
    if stated > size:
        raise RefusalError(f"its zip archive claims {stated} bytes, the file has {size}")
    damaged = archive.testzip()  # PyTorch's reader leaves the checksums out
    if damaged:
        raise RefusalError(f"its record {damaged:.60} does not have its checksum")


def _read_legacy(file: mmap.mmap, path: Path, trust_pickle: bool):
    if trust_pickle:
        return _torch_load(path, trusted=True)
    left = path.stat().st_size
    storages: dict[str, int] = {}

    def check_storage(key: str, size: int) -> None:
        nonlocal left
        left -= 0 if key in storages else size
        if storages.setdefault(key, size) != size or left < 0:
            raise RefusalError("its storages claim more bytes than the file has")

    # Magic number, version, the machine's sizes, the contents, the keys of the storages.
    checkers = [TensorChecker(read_pickle(file), check_storage) for _ in range(5)]
    for checker in checkers:
        checker.load()
    return _torch_load(path, numpy_numbers=any(c.has_numpy_numbers for c in checkers))


def _torch_load(path: Path, *, trusted: bool = False, numpy_numbers: bool = False):
    if trusted:
        logger.warning(f"Loading {path} with its code, because its pickle is trusted")
    with open(path, "rb") as file:  # by its name alone, PyTorch takes some files for others
        if numpy_numbers:
            return torch.load(file, "cpu", NumpyNumbers, weights_only=False)
        return torch.load(file, map_location="cpu", weights_only=not trusted)


def _read_array_pickle(file: mmap.mmap, path: Path, trust_pickle: bool):
    if trust_pickle:
        logger.warning(f"Loading {path} with its code, because its pickle is trusted")
        return pickle.load(file, encoding="latin1")
    data = read_pickle(file)
    if file.read(1):
        raise RefusalError("its pickle ends before the file does")
    return ArrayUnpickler(data).load()


# ---- contents -----------------------------------------------------------------------------------


def _unwrap(content) -> tuple[dict, dict]:
    """The weights of a ``.pth``, and what lay beside them."""
    if not isinstance(content, dict):
        raise RefusalError(f"it holds a {type(content).__name__}, a checkpoint is a dict")
    wrappers = [name for name in _WRAPPERS if isinstance(content.get(name), dict)]
    if len(wrappers) > 1:
        raise RefusalError("it has both an entry 'model' and an entry 'state_dict'")
    if not wrappers:
        return dict(content), {}
    return content[wrappers[0]], {k: v for k, v in content.items() if k != wrappers[0]}


def _unwrap_pickle(content) -> tuple[dict, dict]:
    """The same of a ``.pkl``, by the rules of Detectron2's checkpointer."""
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        weights, metadata = _unwrap(content)
        return weights, {k: v for k, v in metadata.items() if isinstance(v, _PLAIN)}
    if isinstance(content, dict) and isinstance(content.get("blobs"), dict):
        content = content["blobs"]
    weights, _ = _unwrap(content)
    for name in [k for k in weights if isinstance(k, str) and k.endswith("_momentum")]:
        del weights[name]
    return weights, {}


def _tensors(content: Mapping, size: int) -> dict[str, torch.Tensor]:
    """Finite plain tensors by name, or a refusal with the name of the one that is not."""
    if not content:
        raise RefusalError("it holds no weights")
    tensors = {}
    left = _SHARING * size
    for name, value in content.items():
        if type(name) is not str:
            raise RefusalError(f"its weights have a name that is a {type(name).__name__}, no text")
        value = _tensor(name, value)
        left -= value.numel() * value.element_size()
        if left < 0:
            raise RefusalError(
                f"its weights claim more than {_SHARING} times the bytes of the file"
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise RefusalError(f"its {name} has NaN or infinite values: training diverged")
        tensors[name] = value
    if all(name.startswith(_DDP) for name in tensors):
        tensors = {name.removeprefix(_DDP): value for name, value in tensors.items()}
    return tensors


def _tensor(name: str, value) -> torch.Tensor:
    if isinstance(value, ArrayUnpickler.array_class):
        value = value.value
    if isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
        native = value.astype(value.dtype.newbyteorder("="))  # a copy too: the file's is read-only
        try:
            return torch.from_numpy(native)
        except TypeError as error:
            raise RefusalError(f"its {name} is an array of {value.dtype}") from error
    if not isinstance(value, torch.Tensor):
        raise RefusalError(f"its {name} is a {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise RefusalError(f"its {name} is a sparse, quantised or empty tensor, not a plain one")
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
        tensors: by name.
        path: ``.pth`` gets ``{"model": tensors, **metadata}``, ``.safetensors`` the tensors, and
            the metadata in its header, as JSON where they are no texts.
        metadata: what JSON can say.

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
    # Copies: a view would take its whole storage into the file.
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
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

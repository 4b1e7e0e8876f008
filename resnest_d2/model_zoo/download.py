"""Published weights by name: found here, or downloaded from a mirror and verified.

Looked for in this order: the folder that ``RESNEST_D2_WEIGHTS`` names, the cache folder, the
mirrors. A download goes into a hidden folder beside its destination and is renamed into place once
its hash is right. A broken one is continued later. One process downloads, the others wait for it.

gdown does the transfers: with the environment's proxies, timeouts, a progress bar, and byte ranges
that the server must confirm. pooch and ``torch.hub`` always start from zero,
``huggingface_hub.http_get`` is private, pypdl ignores the environment's proxies.
"""

import difflib
import errno
import logging
import os
import re
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from filelock import FileLock

from ..checkpoint.weight_files import file_digest, file_sha256
from ..version import __version__
from .weights import WEIGHTS, WeightFile

logger = logging.getLogger(__name__)

_FOLDER_VARIABLE = "RESNEST_D2_WEIGHTS"
_SUFFIXES = (".pth", ".pkl", ".safetensors")
_HUB = "hf://"
_ARCHIVE = ".zip"

_TIMEOUT = (10, 30)  # seconds: to connect, and between two pieces of data
_RETRIES = 2  # of one transfer, where the connection breaks
_NAME = re.compile(r"\w[\w.-]*")  # no folders, no patterns
_FOLDER_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class DownloadError(OSError):
    """No mirror gave the right file, or it could not be stored; the message has every reason."""


def fetch(name: str, *, sha256: str | None = None, progress: bool = True) -> Path:
    """The file of named weights, downloaded if it is not here.

    Args:
        name: a key of :data:`WEIGHTS`, or a file that :func:`find` finds.
        sha256: all 64 hex digits, in place of the 8 that a published file name carries. A file
            that is here is checked too.
        progress: show a progress bar. HF_HUB_DISABLE_PROGRESS_BARS hides that of ``hf://`` files.

    Raises:
        FileNotFoundError: not here, and no published weights have that name.
        ValueError: no plain name, several files match, or a wrong sha256.
        DownloadError: the download failed.
    """
    if sha256 is not None:
        sha256 = sha256.lower()
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError(f"a sha256 has 64 hex digits, got {sha256!r}")
    path = find(name)
    if path:
        if sha256 and file_sha256(path) != sha256:
            raise ValueError(
                f"{path} is here and has another sha256, {file_sha256(path)}: it stays"
            )
        return path
    if name not in WEIGHTS:
        near = ", ".join(difflib.get_close_matches(name, WEIGHTS)) or "none; resnest-d2 zoo lists"
        raise FileNotFoundError(f"no published weights are named {name}; nearest: {near}")
    weights = WEIGHTS[name]
    if sha256 and len(weights.sha256) == 64 and weights.sha256 != sha256:
        raise ValueError(f"the sha256 of {name} is {weights.sha256}, got {sha256}")
    return _into_cache(weights, sha256 or weights.sha256 or weights.sha1, progress)


def find(name: str) -> Path | None:
    """The file of named weights, if it is here.

    In the folder that ``RESNEST_D2_WEIGHTS`` names: ``name``; else ``name`` with ``.pth``,
    ``.pkl`` or ``.safetensors``; else the published ``name-<8 hex digits>.pth``, or the published
    name where it is another. Then in the cache.

    Raises:
        ValueError: no plain name, or several files match.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"named weights are resnest://NAME, without folders, got {name!r}")
    folder = os.environ.get(_FOLDER_VARIABLE)
    if folder:
        root = Path(folder)
        published = re.compile(re.escape(name) + r"-[0-9a-f]{8}\.pth")
        found = (
            [path for path in [root / name] if path.is_file()]
            or [path for path in (root / (name + end) for end in _SUFFIXES) if path.is_file()]
            or sorted(path for path in root.glob("*.pth") if published.fullmatch(path.name))
            or [root / other for other in _published_names(name) if (root / other).is_file()]
        )
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ValueError(f"{name} is ambiguous: {_FOLDER_VARIABLE} {folder} has {names}")
        if found:
            return found[0]
    cached = _cached(WEIGHTS[name]) if name in WEIGHTS else None
    return cached if cached and cached.is_file() else None


def _published_names(name: str) -> set[str]:
    """Names of the unpacked files of the mirrors."""
    urls = WEIGHTS[name].urls if name in WEIGHTS else ()
    return {f"{PurePosixPath(urlsplit(url).path).stem}.pth" for url in urls}


def where_looked(name: str) -> str:
    """Why :func:`find` found nothing in the folder."""
    folder = os.environ.get(_FOLDER_VARIABLE)
    if not folder:
        return f"{_FOLDER_VARIABLE} is not set"
    names = ", ".join(name + end for end in ("", *_SUFFIXES))
    return f"{_FOLDER_VARIABLE} is {folder}, which has none of {names}, {name}-<8 hex digits>.pth"


def _cached(weights: WeightFile) -> Path:
    """Its place in the cache, with the first mirror's suffix: Detectron2 goes by it.

    Not iopath's ``get_cache_dir()``, which uses a temporary folder where it cannot write: a
    read-only cache serves the files that it has.
    """
    suffix = PurePosixPath(urlsplit(weights.urls[0]).path).suffix
    suffix = ".pth" if suffix == _ARCHIVE else suffix
    root = Path(os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache")).expanduser()
    return root / "resnest_d2" / "weights" / (weights.name + suffix)


def _into_cache(weights: WeightFile, digits: str, progress: bool) -> Path:
    target = _cached(weights)
    hidden = target.parent / f".{target.name}"
    logger.info(f"Getting {target} (or waiting for the process that does)")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{hidden}.lock"):
            if not target.is_file():
                staging = Path(f"{hidden}.partial")
                file = _download(weights, digits, staging, progress)
                file.chmod(0o644)  # temporary files are readable by their owner alone
                os.replace(file, target)
                _remove(staging)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{weights.name} cannot be stored in {target.parent}: {error}. FVCORE_CACHE names "
            "another cache folder"
        ) from error
    return target


def _download(weights: WeightFile, digits: str, staging: Path, progress: bool) -> Path:
    """The verified file, still in ``staging``. A part of it stays there where all mirrors fail.

    Each mirror first continues the part. If that fails (no byte ranges, a file that has changed),
    it starts from zero once, in a folder of its own.
    """
    faults = {}
    for url in weights.urls:
        for folder in (staging / "continued", staging / "anew"):
            if folder.name == "anew" or not (digits or url.startswith(_HUB)):
                _remove(folder)  # without a hash, nothing would show that two parts do not match
            had_part = _has_part(folder)
            logger.info(f"Downloading {weights.name} from {url}")
            try:
                file = _transfer(url, folder, progress)
                if url.endswith(_ARCHIVE):
                    file = _unpacked(file)
                faults[url] = _fault(file, digits)
                if not faults[url]:
                    return file
                _remove(folder)
            except Exception as error:  # of several libraries; the next mirror may do
                if getattr(error, "errno", None) in _FOLDER_ERRORS:
                    _remove(staging)
                    raise
                faults[url] = _reason(error)
            logger.warning(f"{url}: {faults[url]}")
            if not (had_part or _has_part(folder)):
                break  # it was from zero
    _remove(staging / "anew")
    if not _has_part(staging):
        _remove(staging)
    reasons = "; ".join(f"{url}: {fault}" for url, fault in faults.items())
    raise DownloadError(f"{weights.name} could not be downloaded: {reasons}")


def _transfer(url: str, folder: Path, progress: bool) -> Path:
    """One mirror's file, unchecked."""
    if url.startswith(_HUB):
        try:
            from huggingface_hub import hf_hub_download
        except ImportError as error:
            raise ImportError("it needs huggingface_hub: pip install 'resnest-d2[hub]'") from error
        owner, repository, file = url.removeprefix(_HUB).split("/", 2)
        return Path(hf_hub_download(f"{owner}/{repository}", file, local_dir=folder / "hub"))
    import gdown  # here: it takes a while, and most runs download nothing

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "part"
    gdown.download(
        url,
        str(file),
        quiet=not progress,
        use_cookies=False,
        resume=True,
        user_agent=f"resnest-d2/{__version__}",
        log_messages={"start": "", "output": ""},
        timeout=_TIMEOUT,
        retries=_RETRIES,
    )
    return file


def _unpacked(archive: Path) -> Path:
    """The only .pth file of a zip archive, beside it; the archive itself where there is none."""
    if not zipfile.is_zipfile(archive):
        return archive
    with zipfile.ZipFile(archive) as content:
        names = [name for name in content.namelist() if name.endswith(".pth")]
        if len(names) != 1:
            return archive
        file = archive.with_name("unpacked")
        with content.open(names[0]) as packed, file.open("wb") as out:
            shutil.copyfileobj(packed, out)
    return file


def _has_part(folder: Path) -> bool:
    """Whether a transfer to ``folder`` has brought something."""
    return any(path.is_file() and path.stat().st_size for path in folder.rglob("*"))


def _fault(file: Path, digits: str) -> str:
    """What is wrong with a downloaded file; ``""`` if nothing.

    Args:
        digits: of its sha1 where they are 40, else of its sha256; "" where no hash is known.
    """
    with file.open("rb") as stream:
        head = stream.read(64)
    if head.lstrip().startswith(b"<"):
        return "it sent a web page, not the file"
    if not digits:
        size = int.from_bytes(head[:8], "little")  # of the header of safetensors
        weights = (
            (head[8:9] == b"{" and 8 + size <= file.stat().st_size)
            or (head.startswith(b"PK\x03\x04") and zipfile.is_zipfile(file))
            or re.match(rb"\x80[\x02-\x05]", head)  # a pickle
        )
        return "" if weights else "it sent no file of weights"
    algorithm = "sha1" if len(digits) == 40 else "sha256"
    found = file_digest(file, algorithm)
    if found.startswith(digits):
        return ""
    fault = f"the {algorithm} of its file is {found}, expected {digits}"
    if len(digits) == 8:
        fault += " from the published name (if you know the file to be right: --sha256)"
    return fault


def _reason(error: Exception) -> str:
    """Why a transfer failed, without the libraries' wrapping."""
    import requests

    if isinstance(error.__cause__, requests.RequestException):
        error = error.__cause__  # gdown: "failed after 2 retries"
    if isinstance(error, requests.HTTPError):
        return f"{error.response.status_code} {error.response.reason}".strip()
    if isinstance(error, requests.RequestException) and error.args:
        inner = getattr(error.args[0], "reason", error.args[0])
        return f"no connection, or a broken one ({str(inner).rpartition(': ')[2]})"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)

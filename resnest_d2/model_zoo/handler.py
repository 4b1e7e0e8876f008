"""``resnest://NAME`` as ``MODEL.WEIGHTS``, here and in Detectron2's own code."""

import os

from iopath.common.file_io import PathHandler

from detectron2.utils.file_io import PathManager

from .download import DownloadError, fetch, find, where_looked
from .weights import WEIGHTS

PREFIX = "resnest://"


def resolve_weights(uri: str, *, download: bool = True) -> str:
    """The file that ``MODEL.WEIGHTS`` means, checked to exist.

    Args:
        uri: ``resnest://NAME`` (see :func:`resnest_d2.model_zoo.fetch`) or a file, of which
            Detectron2's ``?matching_heuristics=True`` may follow. Other prefixes
            (``detectron2://``, ``https://``) are returned unchanged.
        download: False: published weights that are not here are an error.

    Raises:
        FileNotFoundError: no such file; the message names the ways out.
        ValueError: several files match, or NAME is no plain name.
    """
    if uri.startswith(PREFIX):
        return _fetch(uri, download=download)
    path = uri.partition("?")[0]  # ?matching_heuristics=True is Detectron2's
    if "://" not in path and not os.path.isfile(path):
        raise FileNotFoundError(
            f"MODEL.WEIGHTS {uri} does not exist. To train without weights: "
            "MODEL.WEIGHTS '' MODEL.BACKBONE.FREEZE_AT 0"
        )
    return uri


def _name(uri: str) -> str:
    return uri.removeprefix(PREFIX).partition("?")[0]


def _fetch(uri: str, *, download: bool = True) -> str:
    name = _name(uri)
    try:
        if not download and name in WEIGHTS and find(name) is None:
            raise FileNotFoundError("they are not downloaded, because the run cannot start")
        return str(fetch(name))
    except (FileNotFoundError, DownloadError) as error:
        raise FileNotFoundError(
            f"the weights {uri} are not here ({where_looked(name)}), and {error}. Put the file "
            "into the folder that RESNEST_D2_WEIGHTS names, or name it with MODEL.WEIGHTS FILE; or "
            "train from scratch, with MODEL.WEIGHTS '' MODEL.BACKBONE.FREEZE_AT 0"
        ) from error


class _WeightsHandler(PathHandler):
    """Lets Detectron2's own checkpointer open ``resnest://NAME``."""

    def _get_supported_prefixes(self):
        return [PREFIX]

    def _get_local_path(self, path, force=False, **kwargs):
        return _fetch(path)

    def _open(self, path, mode="r", **kwargs):
        if set(mode) - set("rbt"):
            raise ValueError(f"{path} is read only, got mode {mode!r}")
        return open(_fetch(path), mode)  # the caller closes it

    def _isfile(self, path, **kwargs):
        """Whether the file is here; nothing is downloaded."""
        try:
            return find(_name(path)) is not None
        except ValueError:
            return False

    _exists = _isfile


def register_handler() -> None:
    """Register the prefix ``resnest://`` with Detectron2. Calling it again does nothing new."""
    PathManager.register_handler(_WeightsHandler(), allow_override=True)

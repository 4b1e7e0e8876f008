"""Conversion of a file of weights, with a record of its source, licence and input statistics."""

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path

from ..version import __version__
from .convert import convert, describe, recognise
from .record import PROVENANCE_KEY, RECORD_ENTRIES, RECORD_KEY
from .statistics import weights_statistics
from .weight_files import StoredWeights, file_sha256, read_weights, write_weights

logger = logging.getLogger(__name__)


def convert_file(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    source_format: str | None = None,
    target_format: str = "detectron2",
    trust_pickle: bool = False,
    overwrite: bool = False,
    find_license: Callable[[str], str | None] = lambda sha256: None,
) -> StoredWeights:
    """Write the weights of a file under the names of another format, with their provenance.

    The provenance is the entry :data:`.record.PROVENANCE_KEY` beside the weights: ``source`` and
    ``sha256`` (name and digest of the file), ``format`` (its), ``converter`` (this package's
    version), ``license``, and ``statistics`` (``format``, ``mean``, ``std`` of the input that the
    weights expect; null where that is not known).

    Args:
        target: its suffix, ``.pth`` or ``.safetensors``, is the container.
        source_format: by default recognised from the names.
        target_format: one of :data:`.convert.FORMATS`.
        trust_pickle: see :func:`.weight_files.read_weights`.
        overwrite: replace ``target`` if it exists.
        find_license: gives the licence of a file by its sha256, or None.

    Returns:
        What was read.

    Raises:
        FileExistsError: ``target`` exists.
        FileNotFoundError: no such source, or no such folder for the target.
        ValueError: the file is refused, or cannot be converted.
    """
    source, target = Path(source), Path(target)
    if target.suffix not in (".pth", ".safetensors"):
        raise ValueError(f"weights are written as .pth or .safetensors, got {target}")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists and is not overwritten unless you say so")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent}")
    stored = read_weights(source, trust_pickle=trust_pickle)
    try:
        source_format = source_format or recognise(stored.tensors)
        tensors = convert(stored.tensors, source_format, target_format)
    except ValueError as error:
        raise ValueError(f"{source} is not converted: {error}") from error
    sha256 = file_sha256(source)
    statistics = weights_statistics(stored)
    before = stored.metadata.get(PROVENANCE_KEY)
    known = before.get("license") if isinstance(before, dict) else None
    provenance = {
        "source": source.name,
        "sha256": sha256,
        "format": source_format,
        "converter": f"resnest_d2 {__version__}",
        "license": find_license(sha256) or known or "unknown",
        "statistics": statistics and dataclasses.asdict(statistics),
    }
    metadata = {PROVENANCE_KEY: provenance}
    if RECORD_KEY in stored.metadata:
        record = stored.metadata[RECORD_KEY]
        metadata[RECORD_KEY] = {key: record[key] for key in RECORD_ENTRIES if key in record}
    write_weights(tensors, target, metadata=metadata)
    logger.info(
        f"{source} ({describe(stored.tensors, source_format)}, {source_format} names) -> "
        f"{target} ({len(tensors)} tensors, {target_format} names)"
    )
    return stored

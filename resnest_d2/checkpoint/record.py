"""What training and conversion write beside weights, and the one schema that reading demands of it.

A record comes with a file, and a file may come from anybody. :func:`check_record` is applied
wherever one is read, so that no other code need ask what is in it.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import yaml

from detectron2.config import CfgNode

from ..text import printable
from ..version import __version__
from .pickles import RefusalError, plain

if TYPE_CHECKING:
    from .weight_files import StoredWeights

__all__ = [
    "PROVENANCE_KEY",
    "RECORD_ENTRIES",
    "RECORD_KEY",
    "check_record",
    "make_record",
    "parse_config",
    "read_record",
]

RECORD_KEY = "resnest_d2"
"""Entry of a checkpoint that says what it is; see :func:`make_record`."""

RECORD_ENTRIES = ("config", "class_names", "category_ids", "version")

PROVENANCE_KEY = "provenance"
"""Entry of a converted file: where it comes from; see :func:`.provenance.convert_file`."""

_MAX_CONFIG = 100_000  # characters; a config with all its keys has 7 thousand


def make_record(cfg: CfgNode, class_names: Sequence[str], category_ids: Sequence[int] = ()) -> dict:
    """What prediction needs beside the weights, as plain types.

    The config holds the input format and statistics (``INPUT.FORMAT``, ``MODEL.PIXEL_MEAN``,
    ``MODEL.PIXEL_STD``).

    Args:
        category_ids: of the training data, one for each class name, so that results of prediction
            have its ids; empty where they are not known.
    """
    record = {"config": cfg.dump(), "class_names": list(class_names), "version": __version__}
    return {**record, "category_ids": list(category_ids)} if category_ids else record


def check_record(record: object) -> None:
    """Refuse a record that is not of :func:`make_record`'s form.

    Raises:
        RefusalError: with the entry, what it must be, and what it is; the caller names the file.
    """
    if type(record) is not dict:
        raise RefusalError(f"its entry {RECORD_KEY!r} must be a dict, got a {_kind(record)}")
    names, ids = record.get("class_names"), record.get("category_ids", [])
    for key, must_be, sound in (
        ("config", "a text", _is_text(record.get("config"))),
        ("version", "a text", _is_text(record.get("version", ""))),
        ("class_names", "a list of texts", type(names) is list and all(map(_is_text, names))),
        ("category_ids", "a list of whole numbers, no two equal", _is_ids(ids)),
    ):
        if not sound:
            raise RefusalError(f"its {key} must be {must_be}, got {_kind(record.get(key))}")
    if ids and len(ids) != len(names):
        raise RefusalError(f"it has {len(ids)} category_ids for {len(names)} class_names")
    try:
        parse_config(record["config"])
    except ValueError as error:
        version = printable(record.get("version", "?"), 20)
        raise RefusalError(f"its config, of resnest_d2 {version}, is {error}") from error


def parse_config(text: str) -> CfgNode:
    """A config from the YAML text of a file, which ``CfgNode.load_cfg`` would trust.

    YAML's references could make a short text a content without an end. Those to lists and numbers,
    which ``cfg.dump()`` writes itself, are read; the whole may not be larger than a config is.

    Raises:
        ValueError: it is no config.
    """
    if len(text) > _MAX_CONFIG:
        raise ValueError(f"a config of more than {_MAX_CONFIG} characters")
    try:
        content = plain(yaml.load(text, _Loader), len(text))
        if type(content) is not dict:
            raise ValueError(f"a {type(content).__name__}, not keys and values")
        return CfgNode(content)
    except (yaml.YAMLError, RecursionError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no YAML of a config: {printable(reason, 150)}") from error


class _Loader(yaml.SafeLoader):
    """Without ``<<``, which merges mappings before their size can be counted."""

    def flatten_mapping(self, node):
        pass


def read_record(stored: "StoredWeights") -> dict:
    """The record that training wrote beside the weights: ``config``, ``class_names``, ``version``.

    And ``category_ids``, where they were known. Reading the file has checked it.

    Raises:
        ValueError: there is none.
    """
    if RECORD_KEY not in stored.metadata:
        raise ValueError(
            f"{stored.path} has no entry {RECORD_KEY!r}, so it does not say which model it belongs "
            "to: give the config that it was trained with (--config-file FILE, or config= in "
            "Python), or a checkpoint that resnest-d2 train wrote"
        )
    return stored.metadata[RECORD_KEY]


def _is_text(value: object) -> bool:
    """Half of a surrogate pair is none: it can be neither printed nor written."""
    return type(value) is str and not re.search(r"[\ud800-\udfff]", value)


def _is_ids(value: object) -> bool:
    return (
        type(value) is list
        and all(type(part) is int and abs(part) < 1 << 63 for part in value)
        and len(set(value)) == len(value)
    )


def _kind(value: object) -> str:
    return "nothing" if value is None else printable(repr(value), 60)

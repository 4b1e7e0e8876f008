"""The record that training writes beside weights.

A file may come from anybody: :func:`check_record` checks each record that is read, so that other
code need not.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import yaml

from detectron2.config import CfgNode

from ..text import printable
from ..version import __version__
from .pickles import RefusalError, plain, require

if TYPE_CHECKING:
    from .weight_files import StoredWeights

RECORD_KEY = "resnest_d2"
"""Entry of a checkpoint with its record; see :func:`make_record`."""

RECORD_ENTRIES = ("config", "class_names", "category_ids", "version")

PROVENANCE_KEY = "provenance"
"""Entry of a converted file with its source; see :func:`.provenance.convert_file`."""

_MAX_CONFIG = 100_000  # characters; a config with all its keys has 7 thousand


def make_record(cfg: CfgNode, class_names: Sequence[str], category_ids: Sequence[int] = ()) -> dict:
    """What prediction needs beside the weights, as plain types.

    Args:
        category_ids: of the training data, one for each class name; empty where they are not known.
    """
    record = {"config": cfg.dump(), "class_names": list(class_names), "version": __version__}
    return {**record, "category_ids": list(category_ids)} if category_ids else record


def check_record(record: object) -> None:
    """Refuse a record that :func:`make_record` cannot have made.

    Raises:
        RefusalError: it names the entry; the caller adds the file.
    """
    problem = f"its entry {RECORD_KEY!r} must be a dict, got a {_kind(record)}"
    require(type(record) is dict, problem)
    names, ids = record.get("class_names"), record.get("category_ids", [])
    for key, must_be, sound in (
        ("config", "a text", _is_text(record.get("config"))),
        ("version", "a text", _is_text(record.get("version", ""))),
        ("class_names", "a list of texts", type(names) is list and all(map(_is_text, names))),
        ("category_ids", "a list of whole numbers, no two equal", _is_ids(ids)),
    ):
        require(sound, f"its {key} must be {must_be}, got {_kind(record.get(key))}")
    problem = f"it has {len(ids)} category_ids for {len(names)} class_names"
    require(not ids or len(ids) == len(names), problem)
    try:
        parse_config(record["config"])
    except ValueError as error:
        version = printable(record.get("version", "?"), 20)
        raise RefusalError(f"its config, of resnest_d2 {version}, is {error}") from error


def parse_config(text: str) -> CfgNode:
    """A config from YAML text of unknown origin.

    YAML's references can make a short text endless. Those of ``cfg.dump()`` are read; the whole may
    not be larger than a config is.

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
    except Exception as error:  # PyYAML's constructors raise many kinds
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no YAML of a config: {printable(reason, 150)}") from error


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # ten times as fast, if it is there
    """Without ``<<``, which merges mappings before their size can be counted."""

    def flatten_mapping(self, node):
        pass


def read_record(stored: "StoredWeights") -> dict:
    """The record of :func:`make_record` in a file; reading the file has checked it.

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
    """Not with half a surrogate pair, which can be neither printed nor written."""
    return type(value) is str and not re.search(r"[\ud800-\udfff]", value)


def _is_ids(value: object) -> bool:
    return (
        type(value) is list
        and all(type(part) is int and abs(part) < 1 << 63 for part in value)
        and len(set(value)) == len(value)
    )


def _kind(value: object) -> str:
    return "nothing" if value is None else printable(repr(value), 60)

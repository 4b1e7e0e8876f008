"""Names and files of weights."""

from .checkpointer import RunCheckpointer
from .convert import FORMATS, convert, describe, missing_parts, recognise
from .files import StoredWeights, read_weights, write_weights
from .folder import choose_checkpoint, find_checkpoint, read_checkpoint
from .load import PROVENANCE_KEY, RECORD_KEY, make_record, parse_config, read_record
from .provenance import convert_file

__all__ = [
    "FORMATS",
    "PROVENANCE_KEY",
    "RECORD_KEY",
    "RunCheckpointer",
    "StoredWeights",
    "choose_checkpoint",
    "convert",
    "convert_file",
    "describe",
    "find_checkpoint",
    "make_record",
    "missing_parts",
    "parse_config",
    "read_checkpoint",
    "read_record",
    "read_weights",
    "recognise",
    "write_weights",
]

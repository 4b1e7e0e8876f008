"""Names and files of weights."""

from .checkpointer import RunCheckpointer, make_record
from .convert import FORMATS, convert, describe, recognise
from .files import StoredWeights, read_weights, write_weights
from .load import (
    PROVENANCE_KEY,
    RECORD_KEY,
    find_checkpoint,
    read_record,
)
from .provenance import convert_file

__all__ = [
    "FORMATS",
    "PROVENANCE_KEY",
    "RECORD_KEY",
    "RunCheckpointer",
    "StoredWeights",
    "convert",
    "convert_file",
    "describe",
    "find_checkpoint",
    "make_record",
    "read_record",
    "read_weights",
    "recognise",
    "write_weights",
]

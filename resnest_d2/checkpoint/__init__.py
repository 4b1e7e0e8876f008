"""Names and files of weights."""

from .convert import FORMATS, convert, describe, recognise
from .files import StoredWeights, read_weights, write_weights
from .load import (
    RECORD_KEY,
    find_checkpoint,
    read_checkpoint,
    read_record,
)
from .provenance import PROVENANCE_KEY, convert_file, statistics_of
from .save import RunCheckpointer, make_record

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
    "read_checkpoint",
    "read_record",
    "read_weights",
    "recognise",
    "statistics_of",
    "write_weights",
]

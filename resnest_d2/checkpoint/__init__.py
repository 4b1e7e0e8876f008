"""Names and files of weights."""

from .load import (
    RECORD_KEY,
    find_checkpoint,
    read_checkpoint,
    read_record,
)
from .save import RunCheckpointer, make_record

__all__ = [
    "RECORD_KEY",
    "RunCheckpointer",
    "find_checkpoint",
    "make_record",
    "read_checkpoint",
    "read_record",
]

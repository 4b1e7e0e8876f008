"""Names and files of weights."""

from .checkpointer import RunCheckpointer, make_record
from .load import (
    RECORD_KEY,
    find_checkpoint,
    read_checkpoint,
    read_record,
    register_handler,
    resolve_weights,
)

__all__ = [
    "RECORD_KEY",
    "RunCheckpointer",
    "find_checkpoint",
    "make_record",
    "read_checkpoint",
    "read_record",
    "register_handler",
    "resolve_weights",
]

"""Names and files of weights."""

from .load import RECORD_KEY, register_handler, resolve_weights
from .save import RunCheckpointer, make_record

__all__ = ["RECORD_KEY", "RunCheckpointer", "make_record", "register_handler", "resolve_weights"]

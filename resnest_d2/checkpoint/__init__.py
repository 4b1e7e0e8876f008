"""Files of weights: reading, writing, names in other formats, how they fit a model, runs' folders.

Which weights are published, and their download, is in ``model_zoo``.
"""

from .checkpointer import RunCheckpointer
from .convert import FORMATS, convert, describe, missing_parts, recognise
from .folder import choose_checkpoint, find_checkpoint, read_checkpoint
from .provenance import convert_file
from .record import PROVENANCE_KEY, RECORD_KEY, make_record, parse_config, read_record
from .weight_files import StoredWeights, read_weights, write_weights

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

"""The record of the data that the results in a folder belong to, ``data.json``."""

import json
import os
from pathlib import Path

from ..files import write_text

DATA = "data.json"
"""Its file name."""


def write_data_file(folder: str | os.PathLike, **paths: str | os.PathLike) -> None:
    """Write it. ``paths`` are files and folders by their names, such as ``image_root``."""
    record = {name: os.path.abspath(path) for name, path in paths.items()}
    write_text(Path(folder, DATA), json.dumps(record, indent=2) + "\n")

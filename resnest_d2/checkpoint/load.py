"""What training and conversion write beside weights."""

from .files import StoredWeights

__all__ = [
    "PROVENANCE_KEY",
    "RECORD_KEY",
    "read_record",
]

RECORD_KEY = "resnest_d2"
"""Entry of a checkpoint that says what it is; see :func:`resnest_d2.checkpoint.make_record`."""

PROVENANCE_KEY = "provenance"
"""Entry of a converted file: where it comes from; see :func:`.provenance.convert_file`."""


def read_record(stored: StoredWeights) -> dict:
    """The record that training wrote beside the weights: ``config``, ``class_names``, ``version``.

    And ``category_ids``, where they were known.

    Raises:
        ValueError: there is none, or a damaged one.
    """
    path = stored.path
    if RECORD_KEY not in stored.metadata:
        raise ValueError(
            f"{path} has no entry {RECORD_KEY!r}, so it does not say which model it belongs to: "
            "give the config that it was trained with (--config-file FILE, or config= in Python), "
            "or a checkpoint that resnest-d2 train wrote"
        )
    record = stored.metadata[RECORD_KEY]
    entries = [(RECORD_KEY, record, dict)]
    if isinstance(record, dict):
        entries += [("config", record.get("config"), str)]
        entries += [("class_names", record.get("class_names"), list)]
        entries += [("category_ids", record.get("category_ids", []), list)]
    for name, value, kind in entries:
        if not isinstance(value, kind):
            raise ValueError(
                f"{path} is damaged: its {name} must be a {kind.__name__}, "
                f"got {type(value).__name__}"
            )
    return record

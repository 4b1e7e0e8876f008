"""A COCO file, repaired, as a file of its own with a list of what was changed."""

import json
import os
from dataclasses import dataclass

from ...errors import check_choice
from ...files import write_text
from .data_sets import check_coco, examine, require_paths
from .kinds import UNUSABLE
from .normalise import without_given_ids
from .problems import Problem, report
from .repair import make_usable

__all__ = ["FixedFile", "fix_coco"]


@dataclass(frozen=True)
class FixedFile:
    """What was changed in a file.

    Attributes:
        file: the new one.
        mended: problems that are none any more.
        left_out: problems whose entries are left out, with what depends on them.
        objects, lost: annotations of the old file, and how many of them are left out.
    """

    file: str
    mended: tuple[Problem, ...]
    left_out: tuple[Problem, ...]
    objects: int
    lost: int

    def as_dict(self) -> dict:
        """For JSON."""
        lists = {key: [p.as_dict() for p in getattr(self, key)] for key in ("mended", "left_out")}
        return {"file": self.file, "objects": self.objects, "lost": self.lost, **lists}


def fix_coco(
    json_file: str | os.PathLike,
    out: str | os.PathLike,
    *,
    image_root: str | os.PathLike | None = None,
    on_bad_data: str = "repair",
    iscrowd: int | None = None,
    masks: bool = True,
) -> FixedFile:
    """Write what can be used of a file, and beside it, as ``OUT.changes.json``, what was changed.

    An object that lacks a mask stays: a model that learns none can use it. Where ids had to become
    numbers, these are the new file's ids, and the list has those of the old file.

    Args:
        out: a file that is not there yet; in the same folder as ``json_file``, file names stay
            right.
        image_root: the folder of the images, to look at these too.
        on_bad_data: ``"repair"`` refuses what cannot be repaired, ``"skip"`` leaves it out.
        iscrowd: a value for all annotations.
        masks: False takes out masks that cannot be read, for models that learn none.

    Raises:
        FileExistsError: one of the two files is there.
        FileNotFoundError: the file or the folder does not exist.
        ValueError: with all that cannot be repaired.
    """
    check_choice("on_bad_data", on_bad_data, ("repair", "skip"))
    json_file, out = os.fspath(json_file), os.fspath(out)
    list_file = f"{out.removesuffix('.json')}.changes.json"
    if found := [path for path in (out, list_file) if os.path.exists(path)]:
        raise FileExistsError(f"{' and '.join(found)}: there already, and not overwritten")
    if image_root is None:
        require_paths(json_file, os.path.dirname(json_file) or ".")
        problems = examine(json_file).problems
    else:
        problems = check_coco(json_file, image_root)
    if any(problem.kind in UNUSABLE for problem in problems):
        errors = [problem for problem in problems if problem.severity == "error"]
        raise ValueError(f"{json_file} is unusable as a whole:\n{report(errors)}")
    usable = make_usable(
        json_file,
        [problem for problem in problems if problem.kind != "missing-mask"],
        on_bad_data=on_bad_data,
        masks=masks,
        iscrowd=iscrowd,
        always=True,
    )
    if usable.refused:
        raise ValueError(
            f"{json_file}: not all can be repaired; --on-bad-data skip leaves out the rest\n"
            f"{report(usable.refused)}"
        )
    fixed = FixedFile(out, usable.mended, usable.left_out, usable.objects, usable.lost)
    write_text(out, json.dumps(without_given_ids(usable.content)))
    write_text(list_file, json.dumps(fixed.as_dict(), indent=1))
    return fixed

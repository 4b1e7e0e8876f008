"""Images that training and validation data share, for which metrics measure what was memorised."""

import os
from collections.abc import Sequence

from ..check.image_files import shared_files
from ..check.problems import Problem
from .class_folders import ClassFolders
from .label_maps import LabelMaps


def find_overlap(
    learned: Sequence[LabelMaps | ClassFolders], scored: Sequence[LabelMaps | ClassFolders]
) -> None:
    """Take images that are in both out of the training data, and add them to the problems.

    Files are compared, whatever their names. The same folder on both sides, to see whether it can
    be memorised, is a note.
    """
    for folders in learned:
        root = os.path.realpath(folders.image_root)
        same = [other for other in scored if os.path.realpath(other.image_root) == root]
        if same:
            folders.problems.append(Problem(folders.image_root, None, "same-set", root))
        others = [file for other in scored if other not in same for file in other.image_files]
        shared = dict(shared_files(folders.image_files, others)) if others else {}
        folders.leave_out(shared)
        folders.problems.extend(
            Problem(file, None, "same-picture", other) for file, other in shared.items()
        )

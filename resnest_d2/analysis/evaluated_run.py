"""Folders of runs, found and read."""

import glob
import os
from pathlib import Path

from .confusion_run import read_classification_run, read_segmentation_run
from .detection_run import read_detection_run
from .run_folder import CONFIG, EvaluatedRun, read_config

_READERS = {
    "SemanticSegmentor": read_segmentation_run,
    "ImageClassifier": read_classification_run,
}


def read_evaluated_run(
    folder: str | os.PathLike,
    *,
    data: tuple[str | os.PathLike, str | os.PathLike] | None = None,
) -> EvaluatedRun:
    """Read a run's config, results and history.

    Args:
        folder: a run's ``OUTPUT_DIR``.
        data: (COCO json file, or folder of label maps, image folder) of the evaluation, ("", image
            folder) of a classifier's; needed where they have moved.

    Returns:
        A :class:`.SegmentationRun` of a ``SemanticSegmentor``, a :class:`.ClassificationRun` of an
        ``ImageClassifier``, else a :class:`.DetectionRun`.

    Raises:
        FileNotFoundError: there is no such folder, it was not evaluated, or the data is missing.
        ValueError: a file is invalid, or the run was evaluated on several data sets.
    """
    folder = Path(folder)
    config = read_config(folder)
    read = _READERS.get(config.MODEL.META_ARCHITECTURE, read_detection_run)
    return read(folder, config, data)


def find_runs(path: str | os.PathLike) -> list[Path]:
    """The output folders of runs; a FileNotFoundError if there are none.

    Args:
        path: a run's ``OUTPUT_DIR``, a folder of such folders, or a pattern such as
            ``runs/resnest50_*``.
    """
    path = Path(path)
    if (path / CONFIG).is_file():
        return [path]
    found = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    runs = sorted(folder for folder in found if (folder / CONFIG).is_file())
    if not runs:
        what = "is no run's output folder and contains none" if path.is_dir() else "is no folder"
        raise FileNotFoundError(f"{path} {what}: a run's folder has a {CONFIG}")
    return runs

"""A user's own folders in place of the config's data sets: label maps, or folders of classes."""

import logging
from collections import Counter
from collections.abc import Sequence

from detectron2.config import CfgNode

from ...data.check.kinds import BEHAVIOURS
from ...data.check.problems import counted, errors, report
from ...data.check.repair import write_problems
from ...data.folders.class_folders import ClassFolders, check_class_folders, read_folder_names
from ...data.folders.class_sets import ClassFolderFiles, class_folder_files
from ...data.folders.label_folders import LabelMapFiles, label_map_files
from ...data.folders.label_maps import LabelMaps, check_label_maps, read_class_names
from ...data.folders.overlap import find_overlap
from ...errors import check_choice
from ...text import printable
from .config_checks import check_output_dir
from .own_data import bad_data_list
from .request import RunRequest

logger = logging.getLogger(__name__)


def use_label_maps(
    cfg: CfgNode, request: RunRequest, class_names: Sequence[str] = ()
) -> list[LabelMapFiles]:
    """Check the request's folders and register them, or what is usable of them.

    Args:
        class_names: of a trained model, where the request names no classes.

    Returns:
        The data sets, for other processes.

    Raises:
        FileNotFoundError: a folder or the file of the classes does not exist, or a folder is empty.
        ValueError: the data has problems that ``request.on_bad_data`` does not admit, or nothing is
            left without them; the classes are not given.
    """
    pairs = request.train + request.val
    if not pairs:
        return []
    classes = list(class_names) if request.classes is None else read_class_names(request.classes)
    if not classes:
        raise ValueError(
            f"the classes of {pairs[0][0]} are not known: give --classes FILE, a text file with "
            "the name of class 0 in its first line, of class 1 in its second one and so on"
        )
    ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    found = {pair: check_label_maps(pair[1], pair[0], len(classes), ignored) for pair in pairs}
    find_overlap([found[p] for p in request.train], [found[p] for p in request.val])
    _refuse_or_skip(cfg, request, list(found.values()))
    for folders in found.values():
        if not folders.pairs:
            raise ValueError(
                f"no image of {folders.image_root} has a usable label map in "
                f"{folders.label_root}:\n{report(folders.problems)}"
            )
        if not any(_labelled(folders)):
            raise ValueError(f"{folders.label_root}: all pixels are ignored ({ignored})")
    _warn_of_empty_classes([found[pair] for pair in request.train], classes, ignored)
    sets = [label_map_files(found[pair], classes, ignore_value=ignored) for pair in pairs]
    _use(cfg, request, sets)
    return sets


def use_class_folders(
    cfg: CfgNode, request: RunRequest, class_names: Sequence[str] = ()
) -> list[ClassFolderFiles]:
    """The same for an ``ImageClassifier``, whose pairs are ("", folder of class folders).

    Args:
        class_names: of a trained model. In training, those of the first folder hold for the others.

    Raises:
        FileNotFoundError: a folder does not exist, or has no folders of classes.
        ValueError: as above.
    """
    pairs = request.train + request.val
    if not pairs:
        return []
    if annotated := [file for file, _ in pairs if file]:
        raise ValueError(
            f"{annotated[0]} is not for an ImageClassifier, whose data are folders with a folder "
            "for each class: give --train-images DIR and --val-images DIR alone"
        )
    names = None if request.classes is None else read_folder_names(request.classes)
    known = list(class_names) or None
    found: list[ClassFolders] = []
    for _, root in pairs:
        found.append(check_class_folders(root, known, names))
        known = found[0].class_names
    find_overlap(found[: len(request.train)], found[len(request.train) :])
    _refuse_or_skip(cfg, request, found)
    for folders in found:
        if not folders.images:
            raise ValueError(
                f"{folders.image_root} has no usable image:\n{report(folders.problems)}"
            )
    sets = [class_folder_files(folders) for folders in found]
    _use(cfg, request, sets)
    return sets


def _refuse_or_skip(
    cfg: CfgNode, request: RunRequest, found: Sequence[LabelMaps | ClassFolders]
) -> None:
    """Refuse what is wrong with the data, or list it: it is left out."""
    check_choice("on_bad_data", request.on_bad_data, BEHAVIOURS)
    problems = [problem for folders in found for problem in folders.problems]
    wrong = errors(problems)
    if wrong and request.on_bad_data != "skip":
        raise ValueError(
            f"the data has {counted(len(wrong), 'problem')} (--on-bad-data skip leaves these "
            f"images out).\n{report(wrong)}"
        )
    if noted := [problem for problem in problems if problem.severity == "warning"]:
        logger.info(f"The data has {counted(len(noted), 'note')}:\n{report(noted, limit=5)}")
    if request.on_bad_data == "skip":
        if not request.eval_only:  # before another run's files are overwritten
            check_output_dir("OUTPUT_DIR", cfg.OUTPUT_DIR, request)
        write_problems(wrong, bad_data_list(cfg.OUTPUT_DIR, request))


def _use(
    cfg: CfgNode, request: RunRequest, sets: Sequence[LabelMapFiles | ClassFolderFiles]
) -> None:
    """Register the data sets and let the config name them."""
    for data_set in sets:
        data_set.register()
    names = tuple(data_set.name for data_set in sets)
    if request.train:
        cfg.DATASETS.TRAIN = names[: len(request.train)]
        cfg.DATASETS.TEST = ()  # the config's own has other classes
    if request.val:
        cfg.DATASETS.TEST = names[len(request.train) :]


def _warn_of_empty_classes(
    learned: Sequence[LabelMaps], classes: Sequence[str], ignored: int
) -> None:
    pixels = sum((folders.pixels for folders in learned), Counter())
    empty = [name for number, name in enumerate(classes) if not pixels[number]]
    if learned and empty:
        text = f"no training label map has a pixel of {printable(', '.join(empty), 300)}"
        if pixels[None]:
            text += (
                f"; {pixels[None]:,} pixels have the value {ignored}, which is ignored "
                "(MODEL.SEM_SEG_HEAD.IGNORE_VALUE). If they are of a class, give them its number"
            )
        logger.warning(text)


def _labelled(folders: LabelMaps) -> list[int]:
    return [count for number, count in folders.pixels.items() if number is not None]

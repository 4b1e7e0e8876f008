"""A user's own images and label maps in place of the config's data sets."""

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode

from ...data.check.kinds import BEHAVIOURS
from ...data.check.label_maps import LabelMaps, check_label_maps, read_class_names
from ...data.check.problems import counted, errors, report
from ...data.check.repair import write_problems
from ...data.formats.label_folders import LabelMapFiles, label_map_files
from ...errors import check_choice
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
    check_choice("on_bad_data", request.on_bad_data, BEHAVIOURS)
    classes = list(class_names) if request.classes is None else read_class_names(request.classes)
    if not classes:
        raise ValueError(
            f"the classes of {pairs[0][0]} are not known: give --classes FILE, a text file with "
            "the name of class 0 in its first line, of class 1 in its second one and so on"
        )
    ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    found = {pair: check_label_maps(pair[1], pair[0], len(classes), ignored) for pair in pairs}
    _judge(cfg, request, list(found.values()))
    sets = [label_map_files(found[pair], classes, ignore_value=ignored) for pair in pairs]
    for data_set in sets:
        data_set.register()
    names = tuple(data_set.name for data_set in sets)
    if request.train:
        cfg.DATASETS.TRAIN = names[: len(request.train)]
        cfg.DATASETS.TEST = ()  # the config's own has other classes
    if request.val:
        cfg.DATASETS.TEST = names[len(request.train) :]
    return sets


def _judge(cfg: CfgNode, request: RunRequest, found: list[LabelMaps]) -> None:
    """Refuse what is wrong with the data, or leave it out and list it."""
    problems = [problem for folders in found for problem in folders.problems]
    wrong = errors(problems)
    if wrong and request.on_bad_data != "skip":
        raise ValueError(
            f"the data has {counted(len(wrong), 'problem')} (--on-bad-data skip leaves these "
            f"images out).\n{report(wrong)}"
        )
    for folders in found:
        if not folders.pairs:
            raise ValueError(
                f"no image of {folders.image_root} has a usable label map in "
                f"{folders.label_root}:\n{report(folders.problems)}"
            )
    learned = found[: len(request.train)]
    if learned and not any(count for folders in learned for count in _labelled(folders)):
        raise ValueError(f"{learned[0].label_root}: all pixels are ignored: nothing to train on")
    if noted := [problem for problem in problems if problem.severity == "warning"]:
        logger.info(f"The data has {counted(len(noted), 'note')}:\n{report(noted, limit=5)}")
    if request.on_bad_data == "skip":
        if not request.eval_only:  # before another run's files are overwritten
            check_output_dir("OUTPUT_DIR", cfg.OUTPUT_DIR, request)
        write_problems(wrong, bad_data_list(cfg.OUTPUT_DIR, request))


def _labelled(folders: LabelMaps) -> list[int]:
    return [count for number, count in folders.pixels.items() if number is not None]

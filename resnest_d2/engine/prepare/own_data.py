"""A user's own COCO files in place of the config's data sets."""

import logging
import os
import shlex
import warnings

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ...data import CocoSummary, Problem
from ...data.check.data_sets import check_data_sets
from ...data.check.kinds import BEHAVIOURS, REPAIRABLE, UNUSABLE
from ...data.check.problems import count_kinds, report
from ...data.check.repair import (
    UsableSet,
    make_usable,
    read_problems,
    relevant,
    write_problems,
    write_usable,
)
from ...data.flip_pairs import check_flip_pairs, flip_pairs, unpaired_names
from ...data.formats.coco import CocoFiles, keypoint_names, register_usable
from ...errors import check_choice
from ...model_zoo.trained import class_names_of
from .config_checks import check_output_dir
from .request import RunRequest

__all__ = ["log_bad_data", "use_classes", "use_own_data"]

logger = logging.getLogger(__name__)

_LIST = "bad_data.json"
_Pairs = tuple[tuple[str, str], ...]


def use_own_data(cfg: CfgNode, request: RunRequest) -> list[CocoFiles]:
    """Check the request's files and register them, or what is usable of them.

    Keypoints and mask format are taken from them.

    Returns:
        The data sets, for other processes.

    Raises:
        FileNotFoundError: a JSON file or an image folder does not exist.
        ValueError: the data has problems that ``request.on_bad_data`` does not admit, or nothing is
            left without them; it does not fit the config.
    """
    if not request.train + request.val:
        return []
    train, val = _usable_sets(cfg, request)
    summaries = [summary for *_, summary in train + val]
    learned, scored = summaries[: len(train)], summaries[len(train) :]
    stated = set(request.opts[0::2])
    if not request.eval_only:
        _require_objects(learned)
        if cfg.RESNEST.BEST.METRIC and scored and not any(s.num_objects for s in scored):
            raise ValueError(
                f"RESNEST.BEST.METRIC is {cfg.RESNEST.BEST.METRIC}, and {scored[0].json_file} has "
                "no object to score: leave the key out, or give other validation data"
            )
    for summary in scored:
        if summary.num_annotations and not summary.num_objects:
            logger.warning(
                f"{summary.json_file}: all {summary.num_crowds} annotations are crowds "
                "(iscrowd 1), which are not scored: AP will be NaN. If they are single objects, "
                "'resnest-d2 data fix IN OUT --iscrowd 0' makes them so"
            )
    if cfg.MODEL.MASK_ON:
        _use_masks(cfg, learned, scored)
    if cfg.MODEL.KEYPOINT_ON:
        _use_keypoints(cfg, summaries, train=bool(train), stated=stated)
    pairs = cfg.RESNEST.KEYPOINT_FLIP_PAIRS or None
    data_sets = [register_usable(*usable, flip_pairs=pairs) for usable in train + val]
    names = [data_set.name for data_set in data_sets]
    if train:
        cfg.DATASETS.TRAIN = tuple(names[: len(train)])
        cfg.DATASETS.TEST = ()  # the config's own would have other classes
    if val:
        cfg.DATASETS.TEST = tuple(names[len(train) :])
    return data_sets


def use_classes(cfg: CfgNode, request: RunRequest) -> None:
    """Take the class count from data that the user named in place of the config's.

    Raises:
        ValueError: the user states another one.
    """
    stated = set(request.opts[0::2])
    named = not request.eval_only and "DATASETS.TRAIN" in stated
    data_sets = cfg.DATASETS.TEST if request.eval_only else cfg.DATASETS.TRAIN
    if not (request.train or request.val or named) or not data_sets:
        return
    name = data_sets[0]
    if not (classes := len(class_names_of(name))):
        return
    built = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"
    key, value = f"MODEL.{built}.NUM_CLASSES", cfg.MODEL[built].NUM_CLASSES
    if key in stated and value != classes:
        data = MetadataCatalog.get(name).get("json_file", name)
        raise ValueError(
            f"{key} is stated as {value}, and {data} has {classes} classes: leave the key out, or "
            "change the data's categories"
        )
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.MODEL.RETINANET.NUM_CLASSES = classes


def _require_objects(learned: list[CocoSummary]) -> None:
    """Raise a ValueError where there is nothing to train on."""
    if not learned or any(summary.num_objects for summary in learned):
        return
    files = ", ".join(summary.json_file for summary in learned)
    if crowds := sum(summary.num_crowds for summary in learned):
        raise ValueError(
            f"{files}: all {crowds} annotations are crowds (iscrowd 1), which no detector is "
            "trained on. If they are single objects, as in files of CVAT, 'resnest-d2 data fix IN "
            "OUT --iscrowd 0' makes them so"
        )
    raise ValueError(f"{files}: no annotation to train on")


def _use_masks(cfg: CfgNode, learned: list[CocoSummary], scored: list[CocoSummary]) -> None:
    """Refuse files without masks, and take the format of those with masks."""
    for summary in (*learned, *scored):
        if summary.num_objects and not summary.has_masks:
            raise ValueError(
                f"{summary.json_file} has no 'segmentation', and MODEL.MASK_ON is True: choose "
                "a config without masks (faster_rcnn_…, cascade_rcnn_…)"
            )
    for summary in learned:
        if summary.has_rle and cfg.INPUT.MASK_FORMAT != "bitmask":
            logger.info(f"{summary.json_file} has masks in RLE: INPUT.MASK_FORMAT is now 'bitmask'")
            cfg.INPUT.MASK_FORMAT = "bitmask"


def _usable_sets(
    cfg: CfgNode, request: RunRequest
) -> tuple[list[tuple[str, str, CocoSummary]], list[tuple[str, str, CocoSummary]]]:
    """Of the training and the validation sets: usable file, folder, summary."""
    on_bad_data = _behaviour(request.on_bad_data)
    found = check_data_sets(request.train, request.val)
    learned = {"masks": cfg.MODEL.MASK_ON, "keypoints": cfg.MODEL.KEYPOINT_ON}
    shown = [p for checked in found.values() for p in relevant(checked.problems, **learned)]
    if unusable := [problem for problem in shown if problem.kind in UNUSABLE]:
        errors = [problem for problem in shown if problem.severity == "error"]
        raise ValueError(_refusal(request, unusable, errors))
    sets = {
        pair: make_usable(checked, on_bad_data=on_bad_data, **learned)
        for pair, checked in found.items()
    }
    if refused := [problem for usable in sets.values() for problem in usable.refused]:
        raise ValueError(_refusal(request, [], refused))
    _log_changes(sets, [problem for problem in shown if problem.severity == "warning"])

    skip = on_bad_data == "skip"
    folder = os.path.join(cfg.OUTPUT_DIR, "inference") if request.eval_only else cfg.OUTPUT_DIR
    changed = [usable for usable in sets.values() if usable.content is not None]
    if (changed or skip) and not request.eval_only:  # before another run's files are written over
        check_output_dir("OUTPUT_DIR", cfg.OUTPUT_DIR, request)
    files = {
        pair: write_usable(usable, os.path.join(folder, "data")) for pair, usable in sets.items()
    }
    if skip:
        left_out = [problem for usable in sets.values() for problem in usable.left_out]
        write_problems(left_out, os.path.join(folder, _LIST))
    train, val = (
        [(files[pair], pair[1], sets[pair].summary) for pair in _plain(pairs)]
        for pairs in (request.train, request.val)
    )
    return train, val


def _behaviour(on_bad_data: str) -> str:
    """The name of a behaviour, in place of its old one."""
    if on_bad_data == "error":
        warnings.warn('on_bad_data "error" is now "refuse"', DeprecationWarning, stacklevel=2)
        return "refuse"
    check_choice("on_bad_data", on_bad_data, BEHAVIOURS)
    return on_bad_data


def _log_changes(sets: dict[tuple[str, str], UsableSet], warned: list[Problem]) -> None:
    mended = [problem for usable in sets.values() for problem in usable.mended]
    shown = [*warned, *(problem for problem in mended if problem.severity == "error")]
    if shown:
        logger.info(f"The data has {len(shown)} oddities:\n{report(shown, limit=5)}")
    for usable in sets.values():
        usable.warn_of_losses()


def _plain(pairs: _Pairs) -> _Pairs:
    """The pairs as texts, where a program gave paths of another type."""
    return tuple((os.fspath(json_file), os.fspath(root)) for json_file, root in pairs)


def log_bad_data(folder: str, request: RunRequest) -> None:
    """Say in a run's log what was left out of its data.

    Args:
        folder: of the log; :func:`use_own_data` has written the list there.
    """
    if request.on_bad_data != "skip" or not request.train + request.val:
        return
    file = os.path.join(folder, _LIST)
    problems = read_problems(file)
    counts = ", ".join(f"{count} {kind}" for kind, count in count_kinds(problems).items())
    what = f"{len(problems)} problems of the data are left out: {counts}. " if problems else ""
    logger.info(f"{what or 'Nothing of the data is left out. '}The list is {file}")


def _refusal(request: RunRequest, unusable: list[Problem], everything: list[Problem]) -> str:
    pairs = dict.fromkeys(_plain(request.train + request.val))
    arguments = shlex.join(path for pair in pairs for path in pair)
    ways = []
    if unusable:
        ways.append(f"{len(unusable)} of them must be mended in any case")
    else:
        repairable = sum(problem.kind in REPAIRABLE for problem in everything)
        if repairable and request.on_bad_data != "repair":
            ways.append(f"--on-bad-data repair mends up to {repairable} of them")
        ways.append("--on-bad-data skip leaves out what stays broken")
    return (
        f"the data has {len(everything)} problems ({'; '.join(ways)}).\n{report(everything)}\n"
        f"All of them: resnest-d2 data check {arguments}"
    )


def _use_keypoints(
    cfg: CfgNode, summaries: list[CocoSummary], *, train: bool, stated: set[str]
) -> None:
    """Refuse files that keypoints cannot be learned or scored from, and take their number."""
    first = summaries[0]
    for summary in summaries:
        if summary.without_keypoints:
            raise ValueError(
                f"{summary.without_keypoints} of the {summary.num_annotations} annotations of "
                f"{summary.json_file} lack 'keypoints', and MODEL.KEYPOINT_ON is True: list the "
                "names of the keypoints in each category, and --on-bad-data repair takes these "
                "objects as not labelled; or take them out"
            )
        if keypoint_names(summary) != keypoint_names(first):
            raise ValueError(
                f"the keypoints of {first.json_file} and {summary.json_file} differ: "
                f"{keypoint_names(first)} and {keypoint_names(summary)}"
            )
    names = keypoint_names(first)
    if names and cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS != len(names):
        if (key := "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS") in stated:
            raise ValueError(
                f"{key} is stated as {cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS}, and "
                f"{first.json_file} has {len(names)} keypoints: leave the key out"
            )
        logger.info(
            f"The data has {len(names)} keypoints: ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is now that"
        )
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = len(names)
    if train and names and cfg.INPUT.RANDOM_FLIP == "horizontal":
        _check_flip(cfg, names, flip_is_stated="INPUT.RANDOM_FLIP" in stated)


def _check_flip(cfg: CfgNode, names: tuple[str, ...], *, flip_is_stated: bool) -> None:
    """Flip no keypoints whose names do not say which ones a flip exchanges."""
    pairs = cfg.RESNEST.KEYPOINT_FLIP_PAIRS
    check_flip_pairs("RESNEST.KEYPOINT_FLIP_PAIRS", pairs, names)
    found = pairs or flip_pairs(names)
    single = unpaired_names(names, found)
    if flip_is_stated or (found and not single):
        return
    cfg.INPUT.RANDOM_FLIP = "none"
    what = f"no other side of {', '.join(single)}" if single else "no left and no right"
    logger.warning(
        f"The names of the keypoints ({', '.join(names)}) have {what}, and a flip would teach one "
        "side for the other: INPUT.RANDOM_FLIP is now none. Name the pairs in "
        "RESNEST.KEYPOINT_FLIP_PAIRS, such as \"(('a', 'b'),)\", or state INPUT.RANDOM_FLIP "
        "horizontal if the others have no other side"
    )

"""A user's own COCO files in place of the config's data sets."""

import logging
import os
import shlex
import warnings

from detectron2.config import CfgNode

from ...data import CocoSummary, Problem
from ...data.check.data_sets import check_data_sets
from ...data.check.kinds import BEHAVIOURS, REPAIRABLE, UNUSABLE
from ...data.check.problems import count_kinds, counted, report
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
from .config_checks import check_output_dir
from .given_values import GivenValues
from .request import RunRequest

logger = logging.getLogger(__name__)

_Pair = tuple[str, str]  # JSON file, image folder


def use_own_data(cfg: CfgNode, request: RunRequest, given: GivenValues) -> list[CocoFiles]:
    """Check the request's files and register them, or what is usable of them.

    Keypoints and mask format are taken from them.

    Returns:
        The data sets, for other processes.

    Raises:
        FileNotFoundError: a JSON file or an image folder does not exist.
        ValueError: the data has problems that ``request.on_bad_data`` does not admit, or nothing is
            left without them; it does not fit the config.
    """
    pairs = [(os.fspath(file), os.fspath(root)) for file, root in request.train + request.val]
    if not pairs:
        return []
    usable = _usable_sets(cfg, request, pairs)
    summaries = [usable[pair][2] for pair in pairs]
    learned, scored = summaries[: len(request.train)], summaries[len(request.train) :]
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
        _use_keypoints(cfg, summaries, given)
        if request.train:
            _check_flip(cfg, keypoint_names(summaries[0]), given)
    flips = cfg.RESNEST.KEYPOINT_FLIP_PAIRS or None
    data_sets = [register_usable(*usable[pair], flip_pairs=flips) for pair in pairs]
    names = tuple(data_set.name for data_set in data_sets)
    if request.train:
        cfg.DATASETS.TRAIN = names[: len(learned)]
        cfg.DATASETS.TEST = ()  # the config's own would have other classes
    if request.val:
        cfg.DATASETS.TEST = names[len(learned) :]
    return data_sets


def bad_data_list(output_dir: str, request: RunRequest) -> str:
    """The file that lists what was left out of a run's data."""
    folder = os.path.join(output_dir, "inference") if request.eval_only else output_dir
    return os.path.join(folder, "bad_data.json")


def log_bad_data(output_dir: str, request: RunRequest) -> None:
    """Log what was left out of a run's data."""
    if request.on_bad_data != "skip" or not request.train + request.val:
        return
    file = bad_data_list(output_dir, request)
    problems = read_problems(file)
    counts = ", ".join(f"{count} {kind}" for kind, count in count_kinds(problems).items())
    what = f"{len(problems)} problems of the data are left out: {counts}. " if problems else ""
    logger.info(f"{what or 'Nothing of the data is left out. '}The list is {file}")


def _usable_sets(
    cfg: CfgNode, request: RunRequest, pairs: list[_Pair]
) -> dict[_Pair, tuple[str, str, CocoSummary]]:
    """By pair: the JSON file, or a repaired copy of it; the image folder; the summary."""
    on_bad_data = request.on_bad_data
    if on_bad_data == "error":
        warnings.warn('on_bad_data "error" is now "refuse"', DeprecationWarning, stacklevel=2)
        on_bad_data = "refuse"
    check_choice("on_bad_data", on_bad_data, BEHAVIOURS)
    found = check_data_sets(request.train, request.val)
    learned = {"masks": cfg.MODEL.MASK_ON, "keypoints": cfg.MODEL.KEYPOINT_ON}
    shown = [p for checked in found.values() for p in relevant(checked.problems, **learned)]
    if unusable := [problem for problem in shown if problem.kind in UNUSABLE]:
        errors = [problem for problem in shown if problem.severity == "error"]
        raise ValueError(_refusal(on_bad_data, pairs, unusable, errors))
    sets = {
        pair: make_usable(checked, on_bad_data=on_bad_data, **learned)
        for pair, checked in found.items()
    }
    if refused := [problem for usable in sets.values() for problem in usable.refused]:
        raise ValueError(_refusal(on_bad_data, pairs, [], refused))
    _log_changes(sets, [problem for problem in shown if problem.severity == "warning"])

    skip = on_bad_data == "skip"
    listed = bad_data_list(cfg.OUTPUT_DIR, request)
    changed = any(usable.content is not None for usable in sets.values())
    if (changed or skip) and not request.eval_only:  # before another run's files are overwritten
        check_output_dir("OUTPUT_DIR", cfg.OUTPUT_DIR, request)
    written = {
        pair: (
            write_usable(usable, os.path.join(os.path.dirname(listed), "data")),
            pair[1],
            usable.summary,
        )
        for pair, usable in sets.items()
    }
    if skip:
        left_out = [problem for usable in sets.values() for problem in usable.left_out]
        write_problems(left_out, listed)
    return written


def _log_changes(sets: dict[_Pair, UsableSet], warned: list[Problem]) -> None:
    repaired = [problem for usable in sets.values() for problem in usable.mended]
    shown = [*warned, *(problem for problem in repaired if problem.severity == "error")]
    if shown:
        logger.info(
            f"The data has {counted(len(shown), 'problem')}, repaired or harmless:\n"
            f"{report(shown, limit=5)}"
        )
    for usable in sets.values():
        usable.warn_of_losses()


def _refusal(
    on_bad_data: str, pairs: list[_Pair], unusable: list[Problem], errors: list[Problem]
) -> str:
    arguments = shlex.join(path for pair in dict.fromkeys(pairs) for path in pair)
    ways = []
    if unusable:
        ways.append(f"{len(unusable)} of them must be mended in any case")
    else:
        repairable = sum(problem.kind in REPAIRABLE for problem in errors)
        if repairable and on_bad_data != "repair":
            ways.append(f"--on-bad-data repair mends up to {repairable} of them")
        ways.append("--on-bad-data skip leaves out what stays broken")
    return (
        f"the data has {counted(len(errors), 'problem')} ({'; '.join(ways)}).\n{report(errors)}\n"
        f"All of them: resnest-d2 data check {arguments}"
    )


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
    """Refuse files without masks, and take the mask format of the training files."""
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


def _use_keypoints(cfg: CfgNode, summaries: list[CocoSummary], given: GivenValues) -> None:
    """Refuse files without usable keypoints, and take the number of keypoints."""
    names = keypoint_names(summaries[0])
    for summary in summaries:
        if summary.without_keypoints:
            raise ValueError(
                f"{summary.without_keypoints} of the {summary.num_annotations} annotations of "
                f"{summary.json_file} lack 'keypoints', and MODEL.KEYPOINT_ON is True: list the "
                "names of the keypoints in each category, and --on-bad-data repair takes these "
                "objects as not labelled; or take them out"
            )
        if keypoint_names(summary) != names:
            raise ValueError(
                f"the keypoints of {summaries[0].json_file} and {summary.json_file} differ: "
                f"{names} and {keypoint_names(summary)}"
            )
    head, key = cfg.MODEL.ROI_KEYPOINT_HEAD, "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"
    if not names or head.NUM_KEYPOINTS == len(names):
        return
    if given.in_opts(key):
        raise ValueError(
            f"{key} is set to {head.NUM_KEYPOINTS}, and {summaries[0].json_file} has "
            f"{len(names)} keypoints: leave the key out"
        )
    logger.info(f"{key} is now {len(names)}, the number of keypoints of the data")
    head.NUM_KEYPOINTS = len(names)


def _check_flip(cfg: CfgNode, names: tuple[str, ...], given: GivenValues) -> None:
    """Turn flips off where the names do not say which keypoints a flip exchanges."""
    if not names or cfg.INPUT.RANDOM_FLIP != "horizontal":
        return
    pairs = cfg.RESNEST.KEYPOINT_FLIP_PAIRS
    check_flip_pairs("RESNEST.KEYPOINT_FLIP_PAIRS", pairs, names)
    found = pairs or flip_pairs(names)
    single = unpaired_names(names, found)
    if given.in_opts("INPUT.RANDOM_FLIP") or (found and not single):
        return
    cfg.INPUT.RANDOM_FLIP = "none"
    what = f"no other side of {', '.join(single)}" if single else "no left and no right"
    logger.warning(
        f"The names of the keypoints ({', '.join(names)}) have {what}, and a flip would teach one "
        "side for the other: INPUT.RANDOM_FLIP is now none. Name the pairs in "
        "RESNEST.KEYPOINT_FLIP_PAIRS, such as \"(('a', 'b'),)\", or set INPUT.RANDOM_FLIP "
        "horizontal if the others have no other side"
    )

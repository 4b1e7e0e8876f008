"""A user's own COCO files in place of the config's data sets."""

import logging
import os
import shlex

from detectron2.config import CfgNode

from ..data import CocoSummary, Problem, check_coco_json, register_coco
from ..data.check import problems_by_set
from ..data.clean import needs_rewriting, read_problems, write_clean_set, write_problems
from ..data.problems import OF_KEYPOINTS, OF_MASKS, UNUSABLE, count_kinds, report
from ..modeling.checks import check_choice
from .checks import check_output_dir
from .request import RunRequest

__all__ = ["log_bad_data", "use_own_data"]

logger = logging.getLogger(__name__)

_LIST = "bad_data.json"
_Pairs = tuple[tuple[str, str], ...]


def use_own_data(cfg: CfgNode, request: RunRequest) -> None:
    """Check the request's files and register them, or what is usable of them.

    Class count, keypoints and mask format are taken from them.

    Raises:
        FileNotFoundError: a JSON file or an image folder does not exist.
        ValueError: the data has problems and ``request.on_bad_data`` is ``"error"``, or nothing is
            left without them; it does not fit the config.
    """
    if not request.train + request.val:
        return
    check_choice("on_bad_data", request.on_bad_data, ("error", "skip"))
    train, val = _usable_sets(cfg, request)
    summaries = [check_coco_json(*pair) for pair in train + val]
    if train:
        cfg.DATASETS.TRAIN = tuple(register_coco(*pair) for pair in train)
        cfg.DATASETS.TEST = ()  # the config's own would have other classes
    if val:
        cfg.DATASETS.TEST = tuple(register_coco(*pair) for pair in val)
    classes = len(summaries[0].class_names)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.MODEL.RETINANET.NUM_CLASSES = classes
    learned, scored = summaries[: len(train)], summaries[len(train) :]
    if learned and not request.eval_only and not any(s.num_annotations for s in learned):
        files = ", ".join(summary.json_file for summary in learned)
        raise ValueError(f"{files}: no annotation to train on")
    if cfg.MODEL.MASK_ON:
        for summary in (*learned, *(s for s in scored if s.num_annotations)):
            if not summary.has_masks:
                raise ValueError(
                    f"{summary.json_file} has no 'segmentation', and MODEL.MASK_ON is True: choose "
                    "a config without masks (faster_rcnn_…, cascade_rcnn_…)"
                )
        for summary in learned:
            if summary.has_rle and cfg.INPUT.MASK_FORMAT != "bitmask":
                logger.info(
                    f"{summary.json_file} has masks in RLE: INPUT.MASK_FORMAT is now 'bitmask'"
                )
                cfg.INPUT.MASK_FORMAT = "bitmask"
    if cfg.MODEL.KEYPOINT_ON:
        _use_own_keypoints(cfg, summaries)


def _usable_sets(cfg: CfgNode, request: RunRequest) -> tuple[_Pairs, _Pairs]:
    """The request's training and validation sets, or files with the usable part of them."""
    found = problems_by_set(request.train, request.val)
    unread = set() if cfg.MODEL.MASK_ON else OF_MASKS
    unread |= set() if cfg.MODEL.KEYPOINT_ON else OF_KEYPOINTS
    found = {pair: [p for p in found[pair] if p.kind not in unread] for pair in found}
    errors = {pair: [p for p in found[pair] if p.severity == "error"] for pair in found}
    everything = [problem for problems in errors.values() for problem in problems]
    warnings = [p for problems in found.values() for p in problems if p.severity == "warning"]
    if warnings:
        logger.info(f"The data has {len(warnings)} oddities:\n{report(warnings, limit=5)}")
    unusable = [problem for problem in everything if problem.kind in UNUSABLE]
    if unusable or (everything and request.on_bad_data == "error"):
        raise ValueError(_refusal(request, unusable, everything))

    skip = request.on_bad_data == "skip"
    folder = os.path.join(cfg.OUTPUT_DIR, "inference") if request.eval_only else cfg.OUTPUT_DIR
    changed = [pair for pair in found if needs_rewriting(found[pair], errors[pair])]
    if (changed or skip) and not request.eval_only:  # before another run's files are written over
        check_output_dir("OUTPUT_DIR", cfg.OUTPUT_DIR, request)
    rewritten = {
        pair: write_clean_set(pair, errors[pair], os.path.join(folder, "data")) for pair in changed
    }
    if skip:
        write_problems(everything, os.path.join(folder, _LIST))
    train, val = (
        tuple((rewritten.get((j, root), j), root) for j, root in _plain(pairs))
        for pairs in (request.train, request.val)
    )
    return train, val


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
    if not unusable:
        ways = "--on-bad-data skip leaves the broken entries out"
    elif request.on_bad_data == "skip":
        ways = f"{len(unusable)} of them leave nothing to use, also with --on-bad-data skip"
    else:
        ways = f"{len(unusable)} of them must be mended in any case"
    return (
        f"the data has {len(everything)} problems ({ways}).\n{report(everything)}\n"
        f"All of them: resnest-d2 data check {arguments}"
    )


def _use_own_keypoints(cfg: CfgNode, summaries: list[CocoSummary]) -> None:
    """Refuse files that keypoints cannot be learned or scored from, and take their number."""
    first = summaries[0]
    for summary in summaries:
        if summary.without_keypoints:
            raise ValueError(
                f"{summary.without_keypoints} of the {summary.num_annotations} annotations of "
                f"{summary.json_file} lack 'keypoints' or 'num_keypoints', and MODEL.KEYPOINT_ON "
                "is True"
            )
        if summary.keypoint_names != first.keypoint_names:
            raise ValueError(
                f"the keypoints of {first.json_file} and {summary.json_file} differ: "
                f"{first.keypoint_names} and {summary.keypoint_names}"
            )
    number = len(first.keypoint_names)
    if number and cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS != number:
        logger.info(f"The data has {number} keypoints: ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is now that")
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = number

"""``data``: COCO files, label maps and class folders checked, split, counted and shown."""

import argparse
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ..text import printable
from .common import REFUSALS, data_pairs, not_written, paths_in_pairs, refuse, say

_WAYS = (
    "--train-json FILE --train-images DIR, --train-labels DIR --train-images DIR, --train-images "
    "DIR with a folder for each class, or --val-…"
)


def _command(work: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Explain bad input, and files that cannot be written (a full disk, a read-only folder)."""

    @functools.wraps(work)
    def run(args: argparse.Namespace) -> int:
        try:
            return work(args)
        except REFUSALS as error:
            return refuse(error)
        except OSError as error:
            if "out" not in args:
                raise
            return not_written(args.out, error)

    return run


class _Sets(NamedTuple):
    """The data sets of a command by kind; ``names`` of the classes, as the kind has them.

    Those of COCO files are in groups, which share their categories.
    """

    coco: list[list[tuple[str, str]]]
    label_maps: list[tuple[str, str]]
    class_folders: list[str]
    names: list[str] | dict[str, str] | None


def _given_sets(args: argparse.Namespace) -> _Sets:
    """What ``--train-…`` and ``--val-…`` name."""
    from ..data.folders.class_folders import read_folder_names
    from ..data.folders.label_maps import read_class_names

    sets = _Sets([], [], [], None)
    for split in ("train", "val"):
        pairs = data_pairs(args, split)
        if getattr(args, f"{split}_labels"):
            sets.label_maps.extend(pairs)
        else:
            sets.coco.append([pair for pair in pairs if pair[0]])
            sets.class_folders.extend(root for file, root in pairs if not file)
    if sets.label_maps and not args.classes:
        raise ValueError("the classes of label maps are not known: give --classes FILE")
    if args.classes and not (sets.label_maps or sets.class_folders):
        raise ValueError("--classes is for label maps and class folders")
    if sets.label_maps:
        return sets._replace(names=read_class_names(args.classes))
    return sets._replace(names=read_folder_names(args.classes) if args.classes else None)


def _one(sets: _Sets, how: str) -> Any:
    """The only data set; a ValueError if there is another number."""
    given = [*itertools.chain(*sets.coco), *sets.label_maps, *sets.class_folders]
    if len(given) != 1:
        raise ValueError(f"one data set is {how}: give {_WAYS}, got {len(given)}")
    return given[0]


@_command
def check(args: argparse.Namespace) -> int:
    from ..data import check_sets
    from ..data.check.problems import counted, report
    from ..data.folders.class_folders import check_class_folders
    from ..data.folders.label_maps import check_label_maps
    from ..data.folders.overlap import find_overlap

    sets = _given_sets(args)
    groups = [*sets.coco, *([pair] for pair in paths_in_pairs(args.paths))]
    if not any((*groups, sets.label_maps, sets.class_folders)):
        raise ValueError(f"no data: give {_WAYS}")
    problems = check_sets(*filter(None, groups))
    folders = [
        check_label_maps(images, labels, len(sets.names), args.ignore_value)
        for labels, images in sets.label_maps
    ]
    for root in sets.class_folders:
        classes = folders[0].class_names if folders else None
        folders.append(check_class_folders(root, classes, sets.names))
    learned = len(args.train_labels or args.train_images) if folders else 0
    find_overlap(folders[:learned], folders[learned:])
    problems += [problem for found in folders for problem in found.problems]
    errors = sum(problem.severity == "error" for problem in problems)
    if args.json:
        print(json.dumps({"problems": [problem.as_dict() for problem in problems]}, indent=2))
        return 1 if errors else 0
    if problems:
        say(report(problems, limit=40))
    if not args.quiet:
        more = ". All of them: --json" if len(problems) > 40 else ""
        warnings = counted(len(problems) - errors, "warning")
        say(f"{counted(errors, 'error')}, {warnings}{more}")
    return 1 if errors else 0


@_command
def fix(args: argparse.Namespace) -> int:
    from ..data import fix_coco
    from ..data.check.problems import report

    fixed = fix_coco(
        args.json_file,
        args.out,
        image_root=args.images,
        on_bad_data=args.on_bad_data,
        iscrowd=args.iscrowd,
        masks=not args.no_masks,
    )
    if args.json:
        print(json.dumps(fixed.as_dict(), indent=2))
    elif not args.quiet:
        for title, problems in (("mended", fixed.mended), ("left out", fixed.left_out)):
            if problems:
                print(f"{title}:\n{report(problems, limit=10)}")
        print(f"{args.out}: {fixed.objects - fixed.lost} of {fixed.objects} annotations")
    return 0


@_command
def split(args: argparse.Namespace) -> int:
    from ..data import split_coco

    split = split_coco(
        args.json_file,
        args.out,
        val=args.val,
        seed=args.seed,
        image_root=args.images,
        on_bad_data=args.on_bad_data,
    )
    if args.json:
        print(json.dumps(dataclasses.asdict(split), indent=2))
        return 0
    if not args.quiet:
        say(f"{split.train}: {split.train_images} images")
        say(f"{split.val}: {split.val_images} images")
    if split.one_sided:
        say(f"warning: in one of the two only: {printable(', '.join(split.one_sided))}")
    return 0


@_command
def stats(args: argparse.Namespace) -> int:
    from ..data.stats import (
        class_folder_stats,
        class_folder_stats_table,
        coco_stats,
        label_stats,
        label_stats_table,
        stats_table,
    )

    sets, how = _given_sets(args), {"on_bad_data": args.on_bad_data}
    sets.coco.append([(args.json_file, "")] if args.json_file else [])
    data = _one(sets, "counted")
    if sets.label_maps:
        stats = label_stats(*data, sets.names, ignore_value=args.ignore_value, **how)
        table = label_stats_table
    elif sets.class_folders:
        stats, table = class_folder_stats(data, sets.names, **how), class_folder_stats_table
    else:
        stats, table = coco_stats(data[0], **how), stats_table
    say(json.dumps(dataclasses.asdict(stats), indent=2) if args.json else table(stats))
    return 0


@_command
def show(args: argparse.Namespace) -> int:
    from PIL import Image

    from ..data.intensity import Intensity
    from ..draw.sheet import draw_class_sheet, draw_label_sheet, draw_sheet
    from ..files import writing

    if not args.out.lower().endswith(".png"):
        raise ValueError(f"--out must be a .png file, got {args.out}")
    rule, *limits = args.intensity
    sets = _given_sets(args)
    sets.coco.append(paths_in_pairs(args.paths))
    data = _one(sets, "shown")
    how = {"num_images": args.num, "seed": args.seed, "on_bad_data": args.on_bad_data}
    how["intensity"] = Intensity(rule, tuple(map(float, limits)))
    if sets.label_maps:
        sheet = draw_label_sheet(data, sets.names, ignore_value=args.ignore_value, **how)
    elif sets.class_folders:
        sheet = draw_class_sheet(data, sets.names, **how)
    else:
        sheet = draw_sheet(data, **how)
    os.makedirs(os.path.dirname(args.out) or ".", exist_ok=True)
    with writing(args.out) as file:
        Image.fromarray(sheet).save(file, format="png")
    if not args.quiet:
        say(f"{args.out}: {sheet.shape[1]} x {sheet.shape[0]} pixels")
    return 0

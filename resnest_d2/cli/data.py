"""``data``: COCO-format files and label maps checked, split, counted and shown."""

import argparse
import dataclasses
import functools
import json
import os
from collections.abc import Callable

from ..text import printable
from .common import REFUSALS, data_pairs, not_written, paths_in_pairs, refuse, say


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


def _label_folders(args: argparse.Namespace) -> tuple[list[tuple[str, str]], list[str]]:
    """Folders of label maps with those of their images, and the names of the classes."""
    from ..data.check.label_maps import read_class_names

    splits = [split for split in ("train", "val") if getattr(args, f"{split}_labels")]
    pairs = [pair for split in splits for pair in data_pairs(args, split)]
    if bool(pairs) != bool(args.classes):
        raise ValueError(
            "label maps and the names of their classes belong together: give --train-labels DIR "
            "(or --val-labels) and --classes FILE"
        )
    return pairs, read_class_names(args.classes) if pairs else []


def _coco_pairs(args: argparse.Namespace, split: str) -> tuple[tuple[str, str], ...]:
    return () if getattr(args, f"{split}_labels") else data_pairs(args, split)


def _one(sets: list, how: str) -> tuple[str, str]:
    """The only data set; a ValueError if there is another number."""
    if len(sets) != 1:
        raise ValueError(
            f"one data set is {how}: give --train-json FILE --train-images DIR, --train-labels DIR "
            f"--train-images DIR, or --val-…, got {len(sets)}"
        )
    return sets[0]


@_command
def check(args: argparse.Namespace) -> int:
    from ..data import check_sets
    from ..data.check.label_maps import check_label_maps
    from ..data.check.problems import counted, report

    groups = [_coco_pairs(args, split) for split in ("train", "val")]
    groups += [[pair] for pair in paths_in_pairs(args.paths)]
    folders, classes = _label_folders(args)
    if not any((*groups, folders)):
        raise ValueError(
            "no data: give --train-json FILE --train-images DIR, --train-labels DIR "
            "--train-images DIR, or --val-…"
        )
    problems = check_sets(*filter(None, groups))
    for labels, images in folders:
        problems += check_label_maps(images, labels, len(classes), args.ignore_value).problems
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
    from ..data.stats import coco_stats, label_stats, label_stats_table, stats_table

    folders, classes = _label_folders(args)
    coco = [pair for split in ("train", "val") for pair in _coco_pairs(args, split)]
    coco += [(args.json_file, "")] if args.json_file else []
    data, how = _one([*coco, *folders], "counted"), {"on_bad_data": args.on_bad_data}
    if folders:
        stats = label_stats(*data, classes, ignore_value=args.ignore_value, **how)
        table = label_stats_table
    else:
        stats, table = coco_stats(data[0], **how), stats_table
    say(json.dumps(dataclasses.asdict(stats), indent=2) if args.json else table(stats))
    return 0


@_command
def show(args: argparse.Namespace) -> int:
    from PIL import Image

    from ..data.intensity import Intensity
    from ..draw.sheet import draw_label_sheet, draw_sheet
    from ..files import writing

    if not args.out.lower().endswith(".png"):
        raise ValueError(f"--out must be a .png file, got {args.out}")
    rule, *limits = args.intensity
    folders, classes = _label_folders(args)
    coco = [*_coco_pairs(args, "train"), *_coco_pairs(args, "val"), *paths_in_pairs(args.paths)]
    data = _one([*coco, *folders], "shown")
    how = {"num_images": args.num, "seed": args.seed, "on_bad_data": args.on_bad_data}
    how["intensity"] = Intensity(rule, tuple(map(float, limits)))
    if folders:
        sheet = draw_label_sheet(data, classes, ignore_value=args.ignore_value, **how)
    else:
        sheet = draw_sheet(data, **how)
    os.makedirs(os.path.dirname(args.out) or ".", exist_ok=True)
    with writing(args.out) as file:
        Image.fromarray(sheet).save(file, format="png")
    if not args.quiet:
        say(f"{args.out}: {sheet.shape[1]} x {sheet.shape[0]} pixels")
    return 0

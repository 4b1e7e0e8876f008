"""The file of a study: the commands that it stands for, and what is refused."""

from pathlib import Path

import pytest

from resnest_d2.study import read_study
from resnest_d2_command.parsers import build_parser

SOUND = """
options:
  {train-json: t.json, train-images: [t], val-json: v.json, val-images: v, trust-pickle: true}
keys: {SOLVER.MAX_ITER: 30, MODEL.WEIGHTS: "../first/{group}/{seed}/model_final.pth"}
groups:
  plain: {options: {config-file: mask_rcnn_resnet50_fpn}}
  split: {options: {config-file: mask_rcnn_resnest50_fpn}, keys: {SOLVER.STEPS: [10, 20]}}
seeds: [3, 0]
compare: [[plain, split]]
threads: 2
"""


def _write(folder: Path, text: str) -> Path:
    file = folder / "study.yaml"
    file.write_text(text)
    return file


def test_each_group_is_trained_with_each_seed(tmp_path):
    plan = read_study(_write(tmp_path, SOUND))
    assert [run.label for run in plan.runs] == ["plain/3", "split/3", "plain/0", "split/0"]
    assert (plan.folder, plan.out, plan.threads) == (tmp_path, tmp_path / "study", 2)
    run = plan.runs[1]
    assert run.folder == tmp_path / "study" / "split" / "3"
    args = build_parser().parse_args(run.command)
    assert args.resume and args.quiet and args.trust_pickle
    assert args.output_json == str(run.folder / "results.json")
    assert args.config_file == "mask_rcnn_resnest50_fpn"
    assert (args.train_json, args.train_images, args.val_images) == (["t.json"], ["t"], ["v"])
    assert args.opts == [
        *("SOLVER.MAX_ITER", "30", "MODEL.WEIGHTS", "../first/split/3/model_final.pth"),
        *("SOLVER.STEPS", "[10, 20]", "SEED", "3", "OUTPUT_DIR", str(run.folder)),
    ]


def test_groups_are_compared_on_the_validation_data(tmp_path):
    plan = read_study(_write(tmp_path, SOUND), out=tmp_path / "out")
    compare, report = map(build_parser().parse_args, plan.commands()[4:])
    folder = tmp_path / "out" / "split-against-plain"
    assert (compare.baseline, compare.other) == (f"{plan.out}/plain", f"{plan.out}/split")
    assert (compare.val_json, compare.val_images, compare.out) == ("v.json", "v", str(folder))
    assert report.runs == [f"{plan.out}/plain/3", f"{plan.out}/split/3"]
    assert report.out == str(folder / "report.html")


def test_further_groups_of_a_comparison_are_more_baselines(tmp_path):
    text = SOUND.replace("seeds:", "  deep: {}\nseeds:").replace(
        "plain, split]", "plain, split, deep]"
    )
    compare = build_parser().parse_args(read_study(_write(tmp_path, text)).commands()[-2])
    assert compare.more_baselines == [str(tmp_path / "study" / "deep")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [3, 0]", "seeds: [3, 3]", r"seeds must be a list of different .* \[3, 3\]"),
        ("seeds: [3, 0]", "seeds: 3", "seeds must be a list"),
        ("seeds: [3, 0]", "seeds: [-1]", "seeds must be a list of different numbers from 0"),
        ("threads: 2", "threads: 0", "threads must be a number from 1, got 0"),
        ("threads: 2", "thread: 2", "a study has no key 'thread'; its keys are options, keys"),
        (
            "[[plain, split]]",
            "[[plain, dense]]",
            r"compare must .* groups, got \['plain', 'dense'\]",
        ),
        ("[[plain, split]]", "[[plain]]", "two or more groups, got .'plain'"),
        ("[[plain, split]]", "plain", "compare must be a list of lists"),
        ("keys: {SOLVER.STEPS", "opts: {SOLVER.STEPS", "group split has no key 'opts'"),
        ("SOLVER.MAX_ITER: 30", "SEED: 3", "keys of plain has SEED, which the study itself sets"),
        ("trust-pickle", "resume", "options of plain has resume, which the study itself sets"),
        ("split", "../split", "name of a group must be that of a folder, got '../split'"),
        ("groups:", "group:", "a study has no key 'group'"),
        (SOUND, "", "groups must name at least one group"),
        (SOUND, "[1, 2]", "a study must be a mapping"),
        (SOUND, "a: [", "study.yaml: .*expected"),
    ],
)
def test_an_invalid_file_is_refused_with_its_name(tmp_path, old, new, message):
    file = _write(tmp_path, SOUND.replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        read_study(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file: .*none.yaml"):
        read_study(tmp_path / "none.yaml")

"""``resnest-d2 compare``: what it prints and writes, and what it refuses."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from evaluated_runs import write_data, write_run
from label_sets import CLASSES as LABELS
from label_sets import evaluate_labels, write_label_set

from resnest_d2.analysis.run_folder import read_history
from resnest_d2.evaluation.coco_evaluator import RESULTS
from resnest_d2.evaluation.data_file import DATA
from resnest_d2_command import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two good runs of different seeds, and a bad one."""
    folder = tmp_path_factory.mktemp("runs")
    results = write_data(folder / "val.json")
    stars = [r for r in results if r["category_id"] == 3]
    lost = {id(r) for r in stars[::2]}
    kept = [r for r in results if id(r) not in lost]
    for name, found in (("good_1", results), ("good_2", results[:-1]), ("bad", kept)):
        write_run(folder / name, folder / "val.json", found, "SEED", name[-1].replace("d", "3"))
    return folder


def _compare(*arguments) -> int:
    return main(["compare", *map(str, arguments)])


def test_the_record_and_the_chart_are_written(runs, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    options = ("--resamples", 100, "--no-cost", "--json", "--quiet", "--out", out)
    assert _compare(runs / "good_1", runs / "bad", *options) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert json.loads((out / "comparison.json").read_text()) == record
    assert str(runs) not in printed.out
    assert record["tasks"]["bbox"]["classes"]["star"]["high"] < 0
    assert record["tasks"]["bbox"]["classes"]["ring"]["gain"] == 0
    assert "bad loses" in record["tasks"]["bbox"]["verdict"]
    assert record["settings"] == {"images": 60, "resamples": 100, "confidence": 0.95, "seed": 0}
    assert "cost" not in record and not printed.err
    text = (out / "comparison.md").read_text()
    assert text.startswith("# bad against good_1\n") and str(runs) not in text
    assert (out / "gains.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in out.iterdir()} == {
        "comparison.json",
        "comparison.md",
        "gains.png",
    }


def test_a_pattern_and_a_folder_name_several_runs(runs, tmp_path, capsys):
    seeds = tmp_path / "seeds"
    for name in ("good_1", "good_2"):
        shutil.copytree(runs / name, seeds / name)
    for side in (runs / "good_*", seeds):
        options = ("--resamples", 40, "--no-cost", "--json")
        assert _compare(side, runs / "bad", *options) == 0
        baseline = json.loads(capsys.readouterr().out)["runs"]["baseline"]
        assert [run["folder"] for run in baseline["runs"]] == ["good_1", "good_2"]
        assert baseline["name"] == ("good" if side.name == "good_*" else "seeds")


def test_folders_of_one_name_are_told_apart_by_their_parents(runs, tmp_path, capsys):
    """As the runs of a study: GROUP/SEED."""
    sides = [tmp_path / name / "1" for name in ("good", "bad")]
    for side in sides:
        shutil.copytree(runs / ("good_1" if side == sides[0] else "bad"), side)
    assert _compare(*sides, "--resamples", 40, "--no-cost", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert [side["name"] for side in record["runs"].values()] == ["good/1", "bad/1"]
    assert "bad/1 loses" in record["tasks"]["bbox"]["verdict"]


def test_cost_stands_beside_the_gain(runs, capsys):
    assert _compare(runs / "good_1", runs / "bad", "--resamples", 40, "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert "## Cost" in printed and "ms per image" in printed and "threads" in printed


def test_label_maps_are_compared_in_miou(tmp_path, capsys):
    data = write_label_set(tmp_path / "data", val=4)["val"]
    small = ("MODEL.RESNETS.DEPTH", "14", "MODEL.RESNETS.WIDTH_PER_GROUP", "8")
    small += ("INPUT.MIN_SIZE_TEST", "64", "MODEL.RESNETS.RES2_OUT_CHANNELS", "32")
    metrics = [evaluate_labels(tmp_path / str(n), data, n, *small, seed=n) for n in (0, 8)]
    options = ("--resamples", 40, "--device", "cpu", "--json", "--quiet", "--out", tmp_path / "out")
    assert _compare(tmp_path / "0", tmp_path / "8", *options) == 0
    record = json.loads(capsys.readouterr().out)
    for side, own in zip(record["runs"].values(), metrics, strict=True):
        assert side["runs"][0]["mIoU"]["sem_seg"] == pytest.approx(own["mIoU"])
    task = record["tasks"]["sem_seg"]
    gain = metrics[1]["mIoU"] - metrics[0]["mIoU"]
    assert task["metrics"]["mIoU"]["gain"] == pytest.approx(gain) and gain < -10
    assert "8 loses" in task["verdict"] and "mIoU against 0" in task["verdict"]
    assert list(task["classes"]) == list(LABELS)
    assert record["cost"]["baseline"]["size"] == [64, 64]
    assert "| mIoU " in (tmp_path / "out" / "comparison.md").read_text()
    assert (tmp_path / "out" / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_quiet_prints_the_verdicts_alone(runs, capsys):
    options = ("--resamples", 40, "--no-cost", "--quiet")
    assert _compare(runs / "good_1", runs / "good_1", *options) == 0
    lines = capsys.readouterr().out.split("\n\n")
    assert len(lines) == 2 and all("no difference is shown" in line for line in lines)


def test_interrupted_it_ends_in_one_line_and_writes_nothing(runs, tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("resnest_d2.analysis.comparing.comparison.compare_runs", interrupt)
    assert _compare(runs / "good_1", runs / "bad", "--no-cost", "--out", tmp_path / "out") == 130
    printed = capsys.readouterr()
    assert printed.err == "resnest-d2: error: interrupted\n" and not printed.out
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["comparison.json", "comparison.md", "gains.png"])
def test_each_file_is_written_whole_or_not_at_all(name, runs, tmp_path, monkeypatch, capsys):
    replace = os.replace

    def refuse(source, target):
        if os.path.basename(target) == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    (tmp_path / name).write_text("of an earlier comparison")
    monkeypatch.setattr(os, "replace", refuse)
    options = ("--resamples", 100, "--no-cost", "--out", tmp_path)
    assert _compare(runs / "good_1", runs / "bad", *options) == 1
    assert "is not written: No space left on device (make room)" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "of an earlier comparison"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def _no_results(run):
    (run / "inference" / RESULTS).unlink()


def _no_data_file(run):
    (run / "inference" / DATA).unlink()


def _broken_results(run):
    (run / "inference" / RESULTS).write_text('[{"image_id"')


def _pipe_of_results(run):
    (run / "inference" / RESULTS).unlink()
    os.mkfifo(run / "inference" / RESULTS)


def _second_data_set(run):
    shutil.copytree(run / "inference", run / "inference" / "other")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_no_results, "evaluate the run first"),
        (_no_data_file, "does not say which data"),
        (_broken_results, f"{RESULTS} is not JSON"),
        (_pipe_of_results, f"{RESULTS} is not a regular file"),
        (_second_data_set, "evaluated on 2 data sets"),
        (shutil.rmtree, "is no folder"),
    ],
)
def test_a_run_that_cannot_be_read_is_refused(runs, tmp_path, capsys, damage, named):
    shutil.copytree(runs / "good_1", tmp_path / "run")
    damage(tmp_path / "run")
    assert _compare(runs / "good_1", tmp_path / "run", "--no-cost", "--out", tmp_path / "out") == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


NESTED = "[" * 600 + "]" * 600
RLE = {"size": [10**9, 10**9], "counts": "x"}


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in ("image_id", "bbox", "score") for value in ("null", "[[1]]", NESTED)]
    + [("score", "NaN"), ("bbox", "[1, 2, 3, 1e999]"), ("category_id", "{}")]
    + [("segmentation", json.dumps(mask)) for mask in ([1], RLE, {"size": [48, 64]}, "text")],
    ids=lambda value: value[:20],
)
def test_results_of_wrong_types_are_refused_in_one_line(runs, tmp_path, capsys, key, value):
    run = tmp_path / "run"
    shutil.copytree(runs / "good_1", run)
    results = json.loads((run / "inference" / RESULTS).read_text())
    text = json.dumps([{**results[0], key: "PLANTED"}, *results[1:]])
    (run / "inference" / RESULTS).write_text(text.replace('"PLANTED"', value))
    assert _compare(run, runs / "good_1", "--no-cost") == 2
    said = capsys.readouterr().err
    assert f"{RESULTS}: result 0 has no valid {key}" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("annotations", "bbox", NESTED),
        ("annotations", "segmentation", json.dumps(RLE)),
        ("annotations", "segmentation", "[[NaN, 1, 2, 3, 4, 5]]"),
        ("annotations", "segmentation", "[[0, 0, 9, 1e300, 9, 0]]"),
        ("images", "file_name", "null"),
        ("categories", "name", "[1]"),
    ],
    ids=lambda value: value[:20],
)
def test_data_that_pycocotools_cannot_take_is_refused(runs, tmp_path, capsys, section, key, value):
    data = json.loads(Path(_data_of(runs / "good_1")["json_file"]).read_text())
    data[section][0][key] = "PLANTED"
    (tmp_path / "val.json").write_text(json.dumps(data).replace('"PLANTED"', value))
    moved = ("--val-json", tmp_path / "val.json", "--val-images", tmp_path)
    assert _compare(runs / "good_1", runs / "good_1", "--no-cost", *moved) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'val.json'}" in said.partition("\n")[0] and len(said) < 1000


def _data_of(run):
    return json.loads((run / "inference" / DATA).read_text())


def test_history_of_wrong_types_is_left_out_and_a_wrong_config_is_refused(runs, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(runs / "good_1", run)
    lines = ["[1]", NESTED, '{"iteration": "x"}', '{"iteration": 1, "lr": 1' + "0" * 400 + "}", "3"]
    (run / "metrics.json").write_text("\n".join([*lines, '{"iteration": 2, "lr": 0.5}']))
    assert read_history(run / "metrics.json") == [{"iteration": 1}, {"iteration": 2, "lr": 0.5}]
    for config in ("[]", "MODEL: 3", "a: &a [*a]", "x: [", "MODEL: {MASK_ON: [1]}"):
        (run / "config.yaml").write_text(config)
        assert _compare(run, runs / "good_1", "--no-cost") == 2
        assert f"{run / 'config.yaml'} cannot be read: " in capsys.readouterr().err


def test_data_that_has_moved_can_be_named(runs, tmp_path, capsys):
    shutil.copytree(runs / "good_1", tmp_path / "run")
    _no_data_file(tmp_path / "run")
    options = ("--resamples", 40, "--no-cost", "--json", "--val-json", runs / "val.json")
    assert _compare(runs / "good_1", tmp_path / "run", *options) == 2
    assert "--val-images belong together" in capsys.readouterr().err
    assert _compare(runs / "good_1", tmp_path / "run", *options, "--val-images", runs) == 0
    assert json.loads(capsys.readouterr().out)["tasks"]["segm"]["metrics"]["AP"]["gain"] == 0


def test_more_baselines_give_the_gain_at_equal_cost(runs, tmp_path, capsys):
    deeper = tmp_path / "deeper"
    shutil.copytree(runs / "good_2", deeper)
    config = deeper / "config.yaml"
    config.write_text(config.read_text().replace("DEPTH: 14", "DEPTH: 50"))
    out = tmp_path / "out"
    options = ("--resamples", 40, "--device", "cpu", "--out", out, "--json")
    assert _compare(runs / "good_1", runs / "bad", "--more-baselines", deeper, *options) == 0
    record = json.loads(capsys.readouterr().out)
    for task in ("bbox", "segm"):
        found = record["equal_cost"][task]
        assert list(found) == ["M params", "G multiply-adds of the backbone", "ms per image"]
        assert found["M params"]["cost"] == found["M params"]["costs"][0]  # of one network
        gain = record["tasks"][task]["metrics"]["AP"]
        value, low, high = found["M params"]["gain"]
        assert value == pytest.approx(gain["gain"]) and low <= value <= high
    assert list(record["cost"]) == ["baseline", "other", "baseline 2"]
    text = (out / "comparison.md").read_text()
    assert "## Gain at equal cost" in text and "good_1 (1), deeper (1)" in text
    assert text.endswith("![Metrics over costs](equal_cost.png)\n")
    assert (out / "equal_cost.png").read_bytes().startswith(b"\x89PNG")


def test_more_baselines_need_the_costs(runs, capsys):
    more = ("--more-baselines", runs / "good_2", "--no-cost")
    assert _compare(runs / "good_1", runs / "bad", *more) == 2
    assert "compared at equal cost: leave --no-cost out" in capsys.readouterr().err

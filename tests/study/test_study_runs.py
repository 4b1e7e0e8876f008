"""Studies as they run: order, what is done, failures, stops; with stand-ins for trainings."""

import csv
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from resnest_d2.study import read_study, run_study, study_runs
from resnest_d2_command import main
from resnest_d2_command.signals import ended_by_signals

# Instead of resnest-d2: "train" writes results like a training, or does what the file says that the
# test has put beside the study; other commands are noted.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
words = sys.argv[1:]
with open("calls.txt", "a") as calls:
    print(" ".join(words[:1] + [os.environ["OMP_NUM_THREADS"]] + words[-1:]), file=calls)
if words[0] != "train":
    sys.exit(int(Path("compare.txt").read_text()) if os.path.exists("compare.txt") else 0)
out = Path(words[-1])
act = Path(f"{out.parent.name}_{out.name}.txt")
if act.exists():
    code = act.read_text()
    act.unlink()
    print("why it ended", flush=True)
    if code == "sleep":
        Path("pid.txt").write_text(str(os.getpid()))
        time.sleep(60)
    if code == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(int(code))
with open(out / "metrics.json", "w") as file:
    print(json.dumps({"iteration": 5, "bbox/AP": 30.0}), file=file)
value = 20.0 + len(out.parent.name) + int(out.name) / 10
(out / "results.json").write_text(json.dumps({"bbox": {"AP": value, "AP50": 50.0}}))
"""
STUDY = """
groups: {a: {}, bb: {}}
seeds: [1, 2]
compare: [[a, bb]]
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(study_runs, "COMMAND", [sys.executable, str(tmp_path / "stand_in.py")])
    (tmp_path / "study.yaml").write_text(STUDY)
    lines = []

    def run(**options) -> tuple[int, str]:
        lines.clear()
        code = run_study(read_study(tmp_path / "study.yaml"), say=lines.append, **options)
        return code, "\n".join(lines)

    return run


def _calls(folder: Path) -> list[str]:
    calls = folder / "calls.txt"
    found = calls.read_text().splitlines() if calls.exists() else []
    calls.unlink(missing_ok=True)
    return [call.replace(f"{folder}{os.sep}", "") for call in found]


def test_all_runs_are_done_then_compared_and_never_again(study, tmp_path):
    code, text = study()
    assert code == 0 and "4 of 4 done" in text and "bbox/AP 21.10" in text
    trained = ["train 1 study/a/1", "train 1 study/bb/1", "train 1 study/a/2", "train 1 study/bb/2"]
    compared = "study/bb-against-a"
    expected = [*trained, f"compare 1 {compared}", f"report 1 {compared}/report.html"]
    assert _calls(tmp_path) == expected
    with open(tmp_path / "study" / "runs.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["seed"], row["bbox/AP"]) for row in rows] == [
        *(("a", "1", "21.1"), ("bb", "1", "22.1"), ("a", "2", "21.2"), ("bb", "2", "22.2"))
    ]
    assert {row["best bbox/AP"] for row in rows} == {"30.0"} and all(row["CPU"] for row in rows)
    assert study()[0] == 0
    assert _calls(tmp_path) == expected[4:]


def test_for_a_script_it_prints_json_alone(study, tmp_path, capsys):
    command = ["study", str(tmp_path / "study.yaml")]
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert [run["bbox/AP"] for run in record["runs"]] == [21.1, 22.1, 21.2, 22.2]
    assert "4 of 4 done" in printed.err and record["verdicts"] == {}
    comparison = {"tasks": {"bbox": {"verdict": "bb gains"}}}
    (tmp_path / "study" / "bb-against-a" / "comparison.json").write_text(json.dumps(comparison))
    assert main([*command, "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["verdicts"] == {"bb-against-a": {"bbox": "bb gains"}}
    assert not printed.err.strip()


@pytest.mark.parametrize("how", ["1", "kill"])
def test_after_a_failure_the_others_go_on_and_the_next_call_repeats_it(study, tmp_path, how):
    (tmp_path / "a_1.txt").write_text(how)
    code, text = study(jobs=2)
    assert code == 1 and "a/1 failed" in text and "why it ended" in text
    assert "1 runs have failed" in text
    assert len(_calls(tmp_path)) == 4
    code, text = study()
    assert code == 0 and "4 runs, 3 of them done" in text
    assert _calls(tmp_path)[0] == "train 1 study/a/1"


@pytest.mark.parametrize("code", [2, 75])
def test_refused_input_and_a_stop_end_the_study(study, tmp_path, code):
    (tmp_path / "bb_1.txt").write_text(str(code))
    found, text = study()
    assert found == code and "bb/1: why it ended" in text
    assert _calls(tmp_path) == ["train 1 study/a/1", "train 1 study/bb/1"]


def test_a_failed_comparison_is_told(study, tmp_path):
    (tmp_path / "compare.txt").write_text("2")
    assert study()[0] == 1


def test_threads_are_those_of_the_file(study, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY + "threads: 3\n")
    study()
    assert _calls(tmp_path)[0] == "train 3 study/a/1"


def test_other_arguments_in_the_same_folder_are_refused(study, tmp_path):
    assert study()[0] == 0
    (tmp_path / "study.yaml").write_text(STUDY + "keys: {SOLVER.MAX_ITER: 7}\n")
    with pytest.raises(
        ValueError, match=r"a.1 was begun with other arguments: SEED 1; .*MAX_ITER 7"
    ):
        study()
    (tmp_path / "study.yaml").write_text(STUDY.replace("[1, 2]", "[1, 2, 5]"))
    _calls(tmp_path)
    assert study()[0] == 0
    assert [c for c in _calls(tmp_path) if c.startswith("train")] == [
        *("train 1 study/a/5", "train 1 study/bb/5")
    ]


def test_a_moved_folder_goes_on(study, tmp_path):
    (tmp_path / "bb_2.txt").write_text("75")
    assert study()[0] == 75
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("study", "study.yaml"):
        (tmp_path / name).rename(moved / name)
    assert run_study(read_study(moved / "study.yaml"), say=lambda text: None) == 0
    trained = [line for line in _calls(moved) if line.startswith("train")]
    assert trained == ["train 1 study/bb/2"]


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_ends_the_trainings(study, tmp_path, number, error):
    (tmp_path / "a_1.txt").write_text("sleep")
    plan, pid = read_study(tmp_path / "study.yaml"), tmp_path / "pid.txt"

    def say(text: str) -> None:
        if "bb/1:" in text:  # the other training runs beside it
            while not pid.exists():
                time.sleep(0.01)
            signal.raise_signal(number)

    # A process in the background may ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ended_by_signals(["study", "study.yaml"]), pytest.raises(error):
            run_study(plan, jobs=2, say=say)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_unreadable_records_are_refused_with_their_name(study, tmp_path):
    (tmp_path / "study").mkdir()
    for text in ("{", "[]", '{"a/1": 3}'):
        (tmp_path / "study" / "study.json").write_text(text)
        with pytest.raises(ValueError, match=r"study.json"):
            study()


def test_records_have_the_time_and_the_processor(study, tmp_path):
    study()
    records = json.loads((tmp_path / "study" / "study.json").read_text())
    assert sorted(records) == ["a/1", "a/2", "bb/1", "bb/2"]
    assert all(r["seconds"] > 0 and len(r["processors"]) == 1 for r in records.values())

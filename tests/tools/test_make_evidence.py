"""docs/evidence/results.md: current, and with every run and gain of the studies."""

import json

import pytest
from checkout import ROOT, load_tool, needs_checkout

from resnest_d2.analysis.comparing.comparison import Gain

pytestmark = needs_checkout


@pytest.fixture
def tool():
    return load_tool("make_evidence")


def test_the_page_is_current(tool):
    text = (tool.EVIDENCE / "results.md").read_text(encoding="utf-8")
    assert tool.page() == text, "stale: run python tools/make_evidence.py"


def test_readme_and_the_zoo_have_the_current_summary(tool):
    summary = tool.summary()
    for file in ("docs/evidence/summary.md", "README.md", "MODEL_ZOO.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert summary in text, f"{file} is stale: see Current gains in CONTRIBUTING.md"


@pytest.fixture
def studies(tool, tmp_path, monkeypatch):
    """Three studies: finished, with one run of two groups, and not begun."""
    monkeypatch.setattr(tool, "EVIDENCE", tmp_path)
    monkeypatch.setattr(tool, "STUDIES", {"whole": "roads", "half": "lanes", "none": "paths"})
    groups = "groups: {plain: {}, split: {}}\ncompare: [[plain, split]]\n"
    for name in tool.STUDIES:
        (tmp_path / f"{name}.yaml").write_text(f"# Study {name}.\nseeds: [1]\n{groups}")
    header = "group,seed,minutes,CPU,sem_seg/mIoU,best sem_seg/mIoU\n"
    runs = {
        "whole": "plain,1,90,A,30.5,31\nsplit,1,120,A,33,33\n",
        "half": "plain,7,30,A,30.5,31\n",
    }
    for name, rows in runs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "runs.csv").write_text(header + rows)
    gain = {"baseline": 30.5, "other": 33.0, "gain": 2.5, "low": 0.5, "high": 4.5}
    cost = {"backbone_params": 10, "multiply_adds": 200}
    content = {
        "runs": {
            "baseline": {"name": "plain", "runs": [{}]},
            "other": {"name": "split", "runs": [{}, {}]},
        },
        "tasks": {"sem_seg": {"metrics": {"mIoU": gain}}},
        "cost": {"baseline": cost, "other": {"backbone_params": 12, "multiply_adds": 300}},
    }
    folder = tmp_path / "whole" / "split-against-plain"
    folder.mkdir()
    (folder / "comparison.json").write_text(json.dumps(content))
    return tmp_path


def test_it_has_all_gains_costs_and_runs(tool, studies):
    lines = [[cell.strip() for cell in line.split("|")] for line in tool.page().split("\n")]
    page = tool.page()
    assert page.split("\n\n")[1] == "**Expected gains that are shown (interval above 0): 1 of 1.**"
    link = "[split](whole/split-against-plain/comparison.md)"
    row = [link, "plain", "label maps: mIoU", "2 / 1", "30.5", "33.0", "+2.5"]
    assert ["", *row, "+0.5 to +4.5", "yes", "× 1.20", "× 1.50", ""] in lines
    assert ["", "split", "1", "120", "A", "33", "33", "[log](whole/split/1/log.txt)", ""] in lines
    whole, half, none = page.split("## Study ")[1:]
    assert "3.5 hours" in whole and "Not finished." not in whole
    assert "Not finished." in half and "half/plain/7/log.txt" in half
    assert "Not run yet." in none


def test_without_a_comparison_it_says_so(tool, studies):
    (studies / "whole" / "split-against-plain" / "comparison.json").unlink()
    assert "No study is finished yet" in tool.page() and "Expected gains" not in tool.page()
    assert "no study is finished yet." in " ".join(tool.summary().split())
    tool.draw(studies / "gains.png")


def test_the_summary_has_quoted_and_measured_gains_in_three_sentences(tool, studies):
    text = " ".join(tool.summary().split())
    assert (
        "ResNeSt minus ResNet is +2.5 mIoU on roads (+0.5 to +4.5); 1 of 1 intervals above 0."
        in text
    )
    assert "2.8 to 4.0 more box AP and 2.1 to 3.1 more mask AP" in text
    assert len(text.split(". ")) == 3


def test_the_first_paragraph_names_the_gains_that_do_not_show(tool, monkeypatch):
    ends = {"a": (0.5, 4), "b": (-1, 2), "c": (-1, 0), "d": (-4, -2)}
    gains = [(name, Gain(30, 31, sum(pair) / 2, *pair)) for name, pair in ends.items()]
    monkeypatch.setattr(tool, "measured_gains", lambda: gains)
    assert " ".join(tool.verdict().split()) == (
        "**Expected gains that are shown (interval above 0): 1 of 4.** A loss is shown (interval "
        "below 0) for d. Nothing is shown (the interval contains 0) for b; c."
    )


def test_of_finished_runs_small_files_are_kept_without_the_machines_folders(
    tool, tmp_path, monkeypatch
):
    source, target = tmp_path / "output", tmp_path / "evidence"
    monkeypatch.setattr(tool, "EVIDENCE", target)
    monkeypatch.setattr(tool, "STUDIES", {"one": "roads", "none": "paths"})
    done, begun = source / "one" / "split" / "1", source / "one" / "split" / "2"
    for run in (done, begun):
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(f"OUTPUT_DIR: {run}\n")
        (run / "metrics.json").write_text("{}\n")
        (run / "model_final.pth").write_text("large")
        (run / "log.txt").write_text(
            "PyTorch 2.3 @/home/me/.venv/lib/site-packages/torch\n"
            "[01/02 03:04:05] INFO: Running with full config:\n"
            "\x1b[38;5;204mSEED\x1b[39m: 1\nA:\n- [1]\n"
            f"[01/02 03:04:06] INFO: Full config saved to {run}/config.yaml\n"
        )
    (done / "results.json").write_text("{}\n")
    comparison = source / "one" / "split-against-plain"
    comparison.mkdir()
    for name in ("comparison.json", "comparison.md", "gains.png", "report.html"):
        (comparison / name).write_text("-")
    (source / "one" / "runs.csv").write_text("group,seed\nsplit,1\n")
    tool.keep(source)
    kept = {str(file.relative_to(target)) for file in target.rglob("*") if file.is_file()}
    runs = {f"split/1/{name}" for name in tool.RUN_FILES}
    compared = {f"split-against-plain/{name}" for name in ("comparison.json", "comparison.md")}
    images = {"split-against-plain/gains.png"}
    assert kept == {f"one/{name}" for name in {"runs.csv", *runs, *compared, *images}}
    assert (target / "one" / "split" / "1" / "config.yaml").read_text() == (
        "OUTPUT_DIR: one/split/1\n"
    )
    assert (target / "one" / "split" / "1" / "log.txt").read_text() == (
        "PyTorch 2.3 @torch\n"
        "[01/02 03:04:05] INFO: Running with full config:\n"
        "[01/02 03:04:06] INFO: Full config saved to one/split/1/config.yaml\n"
    )


def test_the_chart_has_quoted_and_measured_gains(tool, studies):
    tool.draw(studies / "gains.png")
    assert (studies / "gains.png").read_bytes().startswith(b"\x89PNG")
    assert tool.measured_gains()[0][0] == "whole: split over plain (label maps)"
    quoted = dict(tool.quoted_gains())
    assert round(quoted["faster_rcnn_resnest50 (boxes)"].gain, 2) == 3.08

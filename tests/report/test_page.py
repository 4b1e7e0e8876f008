"""The report of two runs, in a real browser: it loads alone, shows everything, and runs nothing."""

import base64
import json
import re
import shutil
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import chromium, visit
from evaluated_runs import write_run
from runs import TINY
from trained import train_family

from resnest_d2.analysis.evaluated_run import read_evaluated_run
from resnest_d2.data import sample_set
from resnest_d2.evaluation import evaluate_results
from resnest_d2.evaluation.coco_evaluator import RESULTS
from resnest_d2_command import main

SCRIPT = "<script>window.ran = 1; alert(1)</script>"
NAMES = [
    SCRIPT,
    '"><img src=x onerror="window.ran = 1">',
    r"$\frac{$ {{ 7 * 7 }} {% include 'x' %}",
    "half \ud800 of a pair",
    "--> ]]> &lt;b&gt; 猫 </style></title><script>window.ran = 1</script>",
]
FILE_NAME = "<img src=x onerror=alert(2)>'\".png"
RUN_NAME = "<script>alert(3)<b>"
WEIGHTS = "resnest://<script>window.ran = 1</script>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A ResNet's run and a ResNeSt's, of one data set whose names are hostile.

    The detections are the objects with mistakes drawn at random, more of them in the first.
    """
    root = tmp_path_factory.mktemp("runs")
    json_file, images = sample_set(root, image_size=96, train_images=1, val_images=16)["val"]
    folder = root / "images"
    shutil.copytree(images, folder)
    content = json.loads((root / json_file).read_text())
    for category, name in zip(content["categories"], NAMES, strict=True):
        category["name"] = name
    first = content["images"][0]
    (folder / first["file_name"]).rename(folder / FILE_NAME)
    first["file_name"] = FILE_NAME
    (root / "val.json").write_text(json.dumps(content))
    for name, config, share in (
        ("resnet", "sample_mask_rcnn_resnet50_fpn", 0.6),
        (RUN_NAME, "sample_mask_rcnn_resnest50_fpn", 0.2),
    ):
        results = _detections(content, share)
        options = (*TINY, "MODEL.WEIGHTS", WEIGHTS)
        run = write_run(
            root / name, root / "val.json", results, *options, config=config, images=folder
        )
        lines = [{"iteration": i, "total_loss": 3 / (i + 1), "loss_cls": 1.0} for i in range(9)]
        lines += [{"iteration": i, "bbox/AP": 5.0 * i, "segm/AP": 4.0 * i} for i in (4, 8)]
        (run / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    return root


def _detections(content, share):
    """The objects, a share of them with a mistake: another class, moved, twice, or not found."""
    rng = np.random.default_rng(1)
    found = []
    for own in content["annotations"]:
        result = {key: own[key] for key in ("image_id", "category_id", "bbox", "segmentation")}
        result["score"] = round(float(rng.uniform(0.55, 1)), 3)
        mistake = rng.choice(["class", "place", "twice", "none"]) if rng.random() < share else ""
        x, y, width, height = own["bbox"]
        if mistake == "none":
            continue
        if mistake == "class":
            result["category_id"] = own["category_id"] % len(NAMES) + 1
        if mistake == "place":
            result["bbox"] = [x + 0.5 * width, y, width, height]
        if mistake == "twice":
            found.append({**result, "score": 0.5})
        found.append(result)
    corner = {"image_id": content["images"][0]["id"], "category_id": 1, "bbox": [0, 0, 3, 3]}
    return [*found, {**found[0], **corner, "score": 0.99}]


def test_losses_that_are_not_numbers_are_left_out(runs, tmp_path):
    shutil.copytree(runs / "resnet", tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text('{"iteration": 1, "total_loss": "x"}\n')
    page = tmp_path / "report.html"
    options = ["--out", str(page), "--num-images", "0", "--quiet"]
    assert main(["report", str(tmp_path / "run"), *options]) == 0
    assert "Total loss" not in page.read_text()


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "report.html"
    options = ["--out", str(file), "--num-images", "4", "--quiet"]
    assert main(["report", str(runs / "resnet"), str(runs / RUN_NAME), *options]) == 0
    return file


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 400])
def test_it_loads_alone_and_shows_all(report, browser, width):
    with visit(browser, report, width) as visited:
        page = visited.page
        assert visited.requests == [report.resolve().as_uri()] and not visited.messages
        widths = page.evaluate("[...document.images].map(i => i.naturalWidth)")
        # Of each task 5 curves, 2 charts of mistakes, 2 matrices; 4 scenes; 4 false positives of
        # each run; of training two charts and each run's.
        assert len(widths) == 2 * (5 + 2 + 2) + 4 * 3 + 2 * 4 + 2 + 2 and min(widths) > 0
        assert all(page.evaluate("[...document.images].map(i => !!i.alt)"))
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for element in (*page.locator("table").all(), *page.locator("img").all()):
            assert element.is_visible()
        assert page.locator("table").count() == 7
        # What is wider than the window scrolls in its own box, and so the page does not.
        assert page.evaluate("document.documentElement.scrollWidth") == width
        wide = page.evaluate(
            "[...document.querySelectorAll('main *:not(.scroll *)')]"
            ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
        )
        assert not wide


def test_nothing_runs_and_names_are_shown_as_they_are(report, browser):
    with visit(browser, report, 1280) as visited:
        page = visited.page
        assert page.evaluate("document.querySelectorAll('script, [onerror], bdi *').length") == 0
        assert page.evaluate("window.ran") is None and not visited.messages
        for name in (*NAMES, FILE_NAME, RUN_NAME, "resnest://<script>"):
            shown = name.encode("utf-8", "replace").decode()
            assert page.get_by_text(shown).first.is_visible(), name
        title = page.title()
        assert RUN_NAME in title


def test_what_would_get_through_is_stopped_by_the_policy(report, browser):
    with visit(browser, report, 1280) as visited:
        page, failures = visited.page, []
        page.on("requestfailed", lambda request: failures.append(request.failure))
        image = '<img src="https://example.invalid/x.png" onerror="window.ran = 1">'
        page.evaluate("text => document.body.insertAdjacentHTML('beforeend', text)", image)
        page.evaluate(
            "{const s = document.createElement('script'); s.text = 'window.ran = 2'; "
            "document.body.append(s)}"
        )
        page.wait_for_timeout(200)
        assert page.evaluate("window.ran") is None
        assert failures == ["csp"]
        assert len(visited.messages) >= 3  # the picture, its handler, the script
        assert all("Content Security Policy" in message for message in visited.messages)


def test_charts_have_outlines_for_letters(report):
    charts = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", report.read_text())
    assert charts
    for chart in charts:
        for element in ElementTree.fromstring(base64.b64decode(chart)).iter():
            assert element.tag.rpartition("}")[2] not in ("text", "script", "foreignObject", "a")
            assert not any(name.startswith("on") for name in element.attrib)


def test_the_tables_have_the_numbers_of_evaluation(runs, report, browser):
    run = read_evaluated_run(runs / RUN_NAME)
    ap = 100 * evaluate_results(run.truth, run.results, "segm").stats[0]
    with visit(browser, report, 1280) as visited:
        masks = visited.page.locator("#ap table").nth(1)
        cells = masks.locator("tbody tr").nth(1).locator("td").all_text_contents()
        assert cells[0] == f"{ap:.1f}"
        assert visited.page.locator("#classes tbody tr").count() == len(NAMES)
        text = visited.page.locator("#config").inner_text()
        assert "build_resnet_fpn_backbone" in text and "build_resnest_fpn_backbone" in text


def test_it_is_small(report):
    assert report.stat().st_size < 2 * 2**20


def test_figures_for_scripts_and_speed(runs, tmp_path, capsys):
    file = tmp_path / "deep" / "report.html"
    options = ["--out", str(file), "--num-images", "0", "--speed", "--device", "cpu", "--json"]
    assert main(["report", str(runs / "resnet"), str(runs / RUN_NAME), *options]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["file"] == str(file)
    assert [own["name"] for own in record["runs"]] == ["resnet", RUN_NAME]
    tasks = record["runs"][0]["tasks"]
    assert set(tasks) == {"bbox", "segm"}
    assert [own["name"] for own in tasks["bbox"]["classes"]] == NAMES
    counts = tasks["bbox"]["counts"]
    assert counts["background"] >= 1 and counts["wrong class"] > 1 and counts["duplicate"] > 1
    cost = record["cost"]
    assert cost["resnet"]["params"] < cost[RUN_NAME]["params"]
    text = file.read_text()
    assert "Speed and cost" in text
    assert f"<td>{cost[RUN_NAME]['params'] / 1e6:.2f}</td>" in text
    assert "No image has a mistake, or none was asked for" in text


def test_a_run_without_history_and_detections_has_a_report(runs, tmp_path):
    content = json.loads((runs / "val.json").read_text())
    content["annotations"] = content["annotations"][:3]
    (tmp_path / "val.json").write_text(json.dumps(content))
    run = write_run(tmp_path / "run", tmp_path / "val.json", [], images=tmp_path)
    assert main(["report", str(run), "--out", str(tmp_path / "r.html"), "--quiet"]) == 0
    text = (tmp_path / "r.html").read_text()
    assert "nothing was trained there" in text and "the file is missing" in text


def test_bad_input_is_refused_before_the_work(runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "report.html"

    def refused(*arguments):
        assert main(["report", *map(str, arguments), "--out", str(out)]) == 2
        assert not out.exists()
        return capsys.readouterr().err

    run = runs / "resnet"
    assert "is no folder" in refused(tmp_path / "nothing")
    assert "from 0 to 1, got 2.0" in refused(run, "--score-threshold", 2)
    assert "at least 0, got -1" in refused(run, "--num-images", -1)
    assert "--val-images belong together" in refused(run, "--val-json", runs / "val.json")
    assert "a run is named twice" in refused(run, run)
    assert "1 to 8 runs, got 9" in refused(*[run] * 9)
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "inference" / RESULTS).write_text("[")
    assert "is not JSON" in refused(broken)
    content = json.loads((runs / "val.json").read_text())
    content["annotations"].pop()
    (tmp_path / "val.json").write_text(json.dumps(content))
    other = write_run(tmp_path / "other", tmp_path / "val.json", [])
    assert "evaluated on different data" in refused(run, other)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "resnest-d2[report]" in refused(run)


def test_a_file_that_cannot_be_written_is_said(runs, tmp_path, capsys):
    (tmp_path / "file").touch()
    options = ["--num-images", "0", "--out", str(tmp_path / "file" / "report.html")]
    assert main(["report", str(runs / "resnet"), *options]) == 1
    assert "is not written" in capsys.readouterr().err
    assert main(["report", str(runs / "resnet"), "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_the_report_of_two_trained_runs(tmp_path, browser):
    resnet = ("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.RESNETS.DEPTH", "50")
    first = train_family("mask", tmp_path / "resnet", *resnet, iterations=60)
    second = train_family("mask", tmp_path / "resnest", iterations=120)
    file = tmp_path / "report.html"
    assert main(["report", str(first), str(second), "--out", str(file), "--speed"]) == 0
    assert file.stat().st_size < 10 * 2**20
    for width in (1280, 400):
        with visit(browser, file, width) as visited:
            assert len(visited.requests) == 1 and not visited.messages
            assert min(visited.page.evaluate("[...document.images].map(i => i.naturalWidth)")) > 0
            assert visited.page.evaluate("document.documentElement.scrollWidth") == width

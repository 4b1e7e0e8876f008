"""The report of segmentors, in a real browser."""

import json
import shutil
from pathlib import Path

import pytest
from browser import chromium, visit
from label_sets import evaluate_labels, write_label_set

from resnest_d2.evaluation.sem_seg_evaluator import PREDICTIONS
from resnest_d2_command import main

SCRIPT = "<script>window.ran = 1</script>"
NAMES = (SCRIPT, '"><img src=x onerror="window.ran = 1">', r"$\frac{$ {{ 7 }}", "猫", "a", "b")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    data = write_label_set(root / "data", val=5)["val"]
    metrics = {}
    for name, blocks, depth in (("resnet", 8, "50"), ("resnest", 2, "101")):
        options = ("MODEL.RESNETS.DEPTH", depth)
        metrics[name] = evaluate_labels(root / name, data, blocks, *options, names=NAMES)
        lines = [{"iteration": i, "total_loss": 3 / (i + 1), "loss_sem_seg": 1} for i in range(9)]
        lines += [{"iteration": i, "sem_seg/mIoU": 5.0 * i} for i in (4, 8)]
        (root / name / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    return root, metrics


@pytest.fixture(scope="module")
def report(runs):
    root, _ = runs
    file = root / "report.html"
    options = ["--out", str(file), "--num-images", "3", "--quiet"]
    assert main(["report", str(root / "resnet"), str(root / "resnest"), *options]) == 0
    return file


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 400])
def test_it_loads_alone_and_shows_all(width, runs, report, browser):
    with visit(browser, report, width) as visited:
        page = visited.page
        assert visited.requests == [report.resolve().as_uri()] and not visited.messages
        widths = page.evaluate("[...document.images].map(i => i.naturalWidth)")
        # Two charts and each run's parts of the loss; two matrices; image, truth, predictions.
        assert len(widths) == 2 + 2 + 2 + 3 * (1 + 1 + 2) and min(widths) > 0
        assert all(page.evaluate("[...document.images].map(i => !!i.alt)"))
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("window.ran") is None
        assert page.evaluate("document.querySelectorAll('script, [onerror], bdi *').length") == 0
        for name in NAMES:
            assert page.get_by_text(name).first.is_visible(), name
        links = page.locator("nav a").all()
        targets = [link.get_attribute("href") for link in links]
        assert all(page.locator(f"section{target}").count() == 1 for target in targets)
        assert "#confusion" in targets and "#ap" not in targets and "#cost" not in targets


def test_the_tables_have_the_numbers_of_evaluation(runs, report, browser):
    _, metrics = runs
    with visit(browser, report, 1280) as visited:
        page = visited.page
        for row, own in enumerate(metrics.values()):
            cells = page.locator("#metrics tbody tr").nth(row).locator("td").all_text_contents()
            values = [own[name] for name in ("mIoU", "fwIoU", "mACC", "pACC")]
            assert cells == [f"{value:.1f}" for value in values]
        for row, name in enumerate(NAMES):
            cells = page.locator("#classes tbody tr").nth(row).locator("td").all_text_contents()
            values = [own[f"{kind}-{name}"] for own in metrics.values() for kind in ("IoU", "ACC")]
            shown = [cells[i] for i in (1, 2, 4, 5)]
            assert shown == ["–" if value != value else f"{value:.1f}" for value in values]


def test_the_record_has_the_same_numbers_and_cost(runs, tmp_path, capsys):
    root, metrics = runs
    options = ["--out", str(tmp_path / "r.html"), "--num-images", "0", "--json"]
    assert main(["report", str(root / "resnet"), *options]) == 0
    record = json.loads(capsys.readouterr().out)
    task = record["runs"][0]["tasks"]["sem_seg"]
    assert record["images"] == 5 and "score_threshold" not in record
    assert task["metrics"]["mIoU"] == pytest.approx(metrics["resnet"]["mIoU"])
    assert [own["name"] for own in task["classes"]] == list(NAMES)
    counts = [own["count"] for own in task["confusions"]]
    assert counts == sorted(counts, reverse=True) and counts[0] > 0


def test_what_cannot_be_shown_is_replaced_by_a_notice(runs, tmp_path, caplog):
    root, _ = runs
    shutil.copytree(root / "resnet", tmp_path / "run")
    shutil.copytree(root / "data" / "val", tmp_path / "val")
    for number in range(1, 5):
        (tmp_path / "val" / "images" / f"00000{number}.png").unlink()
    (tmp_path / "run" / "inference" / PREDICTIONS).write_text("[")
    folders = [str(tmp_path / "val" / name) for name in ("labels", "images")]
    options = ["--val-labels", folders[0], "--val-images", folders[1], "--quiet"]
    out = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "run"), "--out", str(out), *options]) == 0
    text = Path(out).read_text()
    assert text.count("000001.png is missing") == 1 and text.count(".png is missing") == 4
    assert "The image cannot be shown." in text and f"{PREDICTIONS} is not JSON" in caplog.text

"""``resnest-d2 zoo``: what it prints, what it refuses."""

import json
import subprocess
import sys

import pytest

from resnest_d2.model_zoo import MODELS, WEIGHTS, list_models
from resnest_d2_command import main


def test_the_table_has_every_model_fits_a_terminal_and_says_how_to_go_on(capsys):
    assert main(["zoo"]) == 0
    text = capsys.readouterr().out
    assert main(["zoo", "list"]) == 0
    assert capsys.readouterr().out == text
    lines = text.splitlines()
    assert {line.split()[0] for line in lines if line.strip()} >= set(MODELS)
    assert max(map(len, lines)) <= 100 and len(lines) <= 80
    (row,) = [line.split() for line in lines if line.startswith("mask_rcnn_resnest50_fpn ")]
    assert row[1:5] == ["42.81", "+2.84", "38.14", "+2.09"]
    (baseline,) = [line.split() for line in lines if line.startswith("mask_rcnn_resnet50_fpn ")]
    assert baseline[1:5] == ["39.97", "–", "36.05", "–"]
    assert any("resnest-d2 evaluate --checkpoint resnest://NAME --verify" in line for line in lines)


def test_list_and_show_need_neither_torch_nor_detectron2():
    code = """
import sys
from resnest_d2_command import main
assert main(["zoo"]) == main(["zoo", "show", "resnest50"]) == 0
assert not {"torch", "detectron2", "resnest_d2"} & {*sys.modules}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "mask_rcnn_resnest50_fpn" in done.stdout, done.stderr


def test_filters_reach_the_list(capsys):
    filters = ["--task", "instance", "--backbone", "resnest101", "--min-ap", "46"]
    for words in (["zoo"], ["zoo", "list"], ["zoo", "--json", *filters, "list"]):
        assert main([*words, *([] if "list" in words[2:] else filters), "--json"]) == 0
        names = [record["name"] for record in json.loads(capsys.readouterr().out)]
        assert names == ["cascade_mask_rcnn_resnest101_fpn"]
    assert main(["zoo", "--min-ap", "0", "--json"]) == 0
    listed = {model["name"] for model in json.loads(capsys.readouterr().out)}
    assert listed == {m.name for m in MODELS.values() if m.published and m.published.box_ap}
    assert listed == {model.name for model in list_models(min_ap=0)}
    assert main(["zoo", "--min-ap", "99"]) == 0
    assert capsys.readouterr().out == "no model fits\n"


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_shown_with_its_weights_and_commands(name, capsys):
    assert main(["zoo", "show", name]) == 0
    text, model = capsys.readouterr().out, MODELS[name]
    lines = [line.strip() for line in text.splitlines()]
    assert lines.count(model.train_command) == lines.count(model.eval_command) == 1
    for weights in (model.weights, model.initial_weights.removeprefix("resnest://")):
        if weights in WEIGHTS:
            assert all(url in lines for url in WEIGHTS[weights].urls)
    if model.baseline:
        assert model.baseline in text


def test_a_file_of_weights_is_shown_with_its_mirrors(capsys):
    assert main(["zoo", "show", "resnest50_detectron"]) == 0
    text = capsys.readouterr().out
    assert all(url in text for url in WEIGHTS["resnest50_detectron"].urls)
    assert "58.393" in text


def test_json_has_the_record_its_file_and_its_commands(capsys):
    assert main(["zoo", "show", "mask_rcnn_resnest50_fpn", "--json"]) == 0
    record, model = json.loads(capsys.readouterr().out), MODELS["mask_rcnn_resnest50_fpn"]
    assert record["published"]["box_ap"] == model.published.box_ap
    assert record["gains"] == model.gains
    assert record["eval_command"] == model.eval_command
    assert record["weight_file"]["urls"] == list(WEIGHTS[model.weights].urls)


@pytest.mark.parametrize("name", ["mask_rcnn_resnest50_fpn", "resnest50_detectron"])
def test_the_old_form_shows_the_same_with_a_deprecation_line(name, capsys):
    for options in ([], ["--json"]):
        assert main(["zoo", "show", name, *options]) == 0
        shown = capsys.readouterr()
        for words in ([name, *options], [*options, name], [name, "--quiet", *options]):
            assert main(["zoo", *words]) == 0
            old = capsys.readouterr()
            assert old.out == shown.out and not shown.err
            assert "deprecated: use 'zoo show NAME'" in old.err


def test_a_model_is_shown_by_the_originals_name_and_as_its_weights_are_named(capsys):
    texts = set()
    for name in ("mask_rcnn_ResNeSt_50_FPN_syncBN_1x", "resnest://mask_rcnn_resnest50_fpn"):
        assert main(["zoo", "show", name]) == 0
        texts.add(capsys.readouterr().out)
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mask_rcnn_resnest51_fpn"], "mask_rcnn_resnest50_fpn"),
        (["show", "mask_rcnn_resnest51_fpn"], "mask_rcnn_resnest50_fpn"),
        (["--task", "boxes"], "task must be one of"),
        (["list", "--backbone", "resnest51"], "backbone must be one of"),
        (["mask_rcnn_resnest50_fpn", "mask_rcnn_resnest101_fpn"], "mask_rcnn_resnest101_fpn"),
        (["mask_rcnn_resnest50_fpn", "--sha256", "0" * 64], "--sha256"),
        (["download"], "NAME"),
        (["download", "mask_rcnn_resnest51_fpn"], "mask_rcnn_resnest50_fpn"),
    ],
)
def test_refused_input_exits_with_2_and_says_why(arguments, message, capsys):
    try:
        code = main(["zoo", *arguments])
    except SystemExit as stop:  # of the parser
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_download_prints_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(tmp_path))
    file = tmp_path / "resnest50.pth"
    file.touch()
    assert main(["zoo", "download", "resnest50"]) == 0
    assert capsys.readouterr().out.strip() == str(file)

"""Cost over one quantity, and over processes: what is measured, what is fitted; no times."""

import json
import re

import pytest
from PIL import Image

from resnest_d2.benchmark import (
    ProcessTimes,
    Scaling,
    measure_processes,
    measure_scaling,
    process_table,
    scaling,
    scaling_of_processes,
)
from resnest_d2_command import main


def test_exponent_is_that_of_a_power_law():
    times = tuple((3.0 * n**1.5, 4.0 * n**1.25) for n in (1, 2, 8))
    fitted = Scaling("batch", "", (1, 2, 8), times, (10, 20, 80))
    assert fitted.exponents == pytest.approx((1.5, 1.25))
    assert fitted.exponent == pytest.approx(1.375)
    assert fitted.multiply_adds_exponent == pytest.approx(1.0)
    assert Scaling("batch", "", (1, 2), times[:2], (None, None)).multiply_adds_exponent is None


@pytest.mark.slow
def test_pixels_and_proposals_are_varied():
    pixels = measure_scaling("pixels", runs=1, warmup=0)
    assert pixels.values[:2] == (128 * 128, 192 * 192)
    assert pixels.multiply_adds_exponent == pytest.approx(1.0, abs=0.01)
    proposals = measure_scaling("proposals", runs=1, warmup=0)
    assert proposals.values == (125, 250, 500, 1000)
    assert [len(runs) for runs in proposals.latency_ms] == [1] * 4


def test_radix_takes_the_variants(facts):
    known = facts("backbones")["models"]
    radix = measure_scaling("radix", runs=1, warmup=0)
    linear = 2048 * 1000  # the classifier's
    for value, counted in zip(radix.values, radix.multiply_adds, strict=True):
        published = known[f"resnest50_fast_{value}s1x64d"]["conv_linear_macs_224"]
        assert counted == published - linear


@pytest.mark.slow
def test_of_training_the_least_batch_is_two():
    batch = measure_scaling("batch", training=True, runs=1, warmup=0)
    assert batch.values == (2, 4, 8)
    assert batch.multiply_adds_exponent == pytest.approx(1.0)


@pytest.mark.slow
def test_processes_share_a_step():
    times = measure_processes("resnest14", batch=2, size=(32, 32), runs=2, warmup=0)
    assert times.processes == 2 and times.gradient_bytes > 4 * 8e6
    for own in (times.alone_ms, times.together_ms, times.synchronised_ms, times.all_reduce_ms):
        assert len(own) == 2 and min(own) > 0
    both = scaling_of_processes(times)
    assert both.values == (1, 2) and both.latency_ms[1] == times.synchronised_ms
    with pytest.raises(ValueError, match="got resnest14 on 1"):
        measure_processes("resnest14", processes=1)
    with pytest.raises(ValueError, match="got mask_rcnn_resnest50_fpn on 2"):
        measure_processes("mask_rcnn_resnest50_fpn")


def test_the_table_of_processes_has_the_median_and_the_range_of_each_part():
    times = ProcessTimes(2, 4, (9.0,), (30.0, 300.0, 20.0), (35.0,), (8.0, 7.0, 9.0))
    rows = process_table(times, form="github").splitlines()
    assert "2 processes" in rows[0]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[2:]]
    assert ["all, without exchange", "30", "20–300"] in cells and len(cells) == 4


def test_command_writes_table_json_and_chart(tmp_path, capsys, monkeypatch):
    small = {1: "resnest14", 2: "resnest26"}
    monkeypatch.setattr(scaling, "_VARIED", {"cardinality": small, "radix": small})
    command = ["benchmark", "--scaling", "cardinality", "radix"]
    assert main([*command, "--runs", "1", "--json", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "benchmark.json").read_text())
    assert [s["quantity"] for s in printed["scalings"]] == ["cardinality", "radix"]
    assert len(printed["scalings"][0]["exponents"]) == 1 and printed["processes"] is None
    assert "| cardinality " in (tmp_path / "benchmark.md").read_text()
    assert Image.open(tmp_path / "benchmark.png").width > 600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scaling", "width"], "a quantity must be one of .*pixels.*processes.*got 'width'"),
        (["resnest50", "--scaling"], "has its own networks .* got resnest50"),
        (["--scaling", "--runs", "0"], "at least one run, .* 0 runs"),
    ],
)
def test_what_cannot_be_varied_is_refused(arguments, message, capsys):
    assert main(["benchmark", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)

"""Cost over one quantity, and over processes: what is measured, what is fitted; no times."""

import json
import re

import pytest
import torch
from PIL import Image

from resnest_d2.benchmark import (
    Cluster,
    ProcessTimes,
    Scaling,
    all_reduce_seconds,
    expected_slowest,
    latency_seconds,
    measure_processes,
    measure_scaling,
    scaling_of_processes,
    step_seconds,
)
from resnest_d2_command import main


def test_exponent_is_that_of_a_power_law():
    times = tuple((3.0 * n**1.5, 4.0 * n**1.25) for n in (1, 2, 8))
    scaling = Scaling("batch", "", (1, 2, 8), times, (10, 20, 80))
    assert scaling.exponents == pytest.approx((1.5, 1.25))
    assert scaling.exponent == pytest.approx(1.375)
    assert scaling.multiply_adds_exponent == pytest.approx(1.0)
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


@pytest.mark.parametrize("gpus", [2, 8])
def test_within_a_node_gradients_pass_the_slowest_link_twice_but_for_their_own_part(gpus):
    cluster = Cluster(gpu_link=100e9, node_link=10e9, hop_seconds=0.0)
    expected = 2 * (gpus - 1) / gpus * 200e6 / 100e9
    assert all_reduce_seconds(200e6, gpus, cluster) == pytest.approx(expected)


def test_between_nodes_hops_and_their_link_are_added():
    cluster = Cluster(gpu_link=100e9, node_link=10e9, hop_seconds=0.0)
    slow = Cluster(gpu_link=100e9, node_link=10e9, hop_seconds=1e-3)
    seconds = all_reduce_seconds(25 * 2**20, 64, cluster)
    between = 2 * 7 / 8 * 25 * 2**20 / 10e9
    assert seconds - all_reduce_seconds(25 * 2**20, 8, cluster) == pytest.approx(between)
    hops = 2 * 6 * 1e-3
    assert latency_seconds(64, slow) == pytest.approx(hops)
    assert all_reduce_seconds(25 * 2**20, 64, slow) - seconds == pytest.approx(hops)
    assert all_reduce_seconds(75 * 2**20, 64, slow) - 3 * seconds == pytest.approx(3 * hops)
    with pytest.raises(ValueError, match="nodes have 8 GPUs, got 12"):
        all_reduce_seconds(1.0, 12, cluster)


def test_backward_pass_hides_all_but_the_last_bucket():
    gradients = 4 * 25 * 2**20
    assert step_seconds(3.0, 0.0, gradients) == pytest.approx(3.0)
    assert step_seconds(3.0, 1.0, gradients) == pytest.approx(3.0 + 0.25)
    assert step_seconds(3.0, 4.0, gradients) == pytest.approx(1.0 + 4.0)
    assert step_seconds(3.0, 1.0, 25 * 2**20) == pytest.approx(3.0 + 1.0)  # one bucket
    assert step_seconds(3.0, 0.0, gradients, slowest=1.5) == pytest.approx(4.5)
    assert step_seconds(3.0, 0.0, gradients, waiting=0.5) == pytest.approx(3.5)


def test_the_slowest_of_many_is_expected_by_order_statistics():
    assert expected_slowest([1.0, 3.0], 1) == pytest.approx(1.0)
    assert expected_slowest([1.0, 3.0], 2) == pytest.approx((1 + 3 * 3) / 4 / 2)
    assert expected_slowest([1.0, 3.0], 1000) == pytest.approx(1.5)
    assert expected_slowest([1.0, 3.0], 1000, 2) == pytest.approx(1.5)
    draws = torch.tensor([5.0, 6.0, 9.0])[torch.randint(3, (200_000, 4, 2))].sum(2)
    simulated = draws.amax(1).mean() / draws.mean()
    assert expected_slowest([5.0, 6.0, 9.0], 4, 2) == pytest.approx(float(simulated), abs=0.01)


@pytest.mark.slow
def test_processes_share_a_step():
    times = measure_processes("resnest14", batch=2, size=(32, 32), runs=2, warmup=0)
    assert times.processes == 2 and times.gradient_bytes > 4 * 8e6
    for own in (times.alone_ms, times.together_ms, times.synchronised_ms, times.all_reduce_ms):
        assert len(own) == 2 and min(own) > 0
    scaling = scaling_of_processes(times)
    assert scaling.values == (1, 2) and scaling.latency_ms[1] == times.synchronised_ms
    with pytest.raises(ValueError, match="got resnest14 on 1"):
        measure_processes("resnest14", processes=1)
    with pytest.raises(ValueError, match="got mask_rcnn_resnest50_fpn on 2"):
        measure_processes("mask_rcnn_resnest50_fpn")


def test_expected_step_is_made_of_the_medians():
    times = ProcessTimes(2, 4 * 25 * 2**20, (9.0,), (30.0, 300.0, 20.0), (35.0,), (8.0, 7.0, 9.0))
    assert times.expected_ms == pytest.approx(30.0 + 2.0)


def test_command_writes_table_json_and_chart(tmp_path, capsys):
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
